"""A fork of tests/processes.py does what a new interpreter does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.processes import FORKS_VARIABLE, run_python

FACTS = """
import atexit, json, os, sys
import neighbour
facts = [sys.argv, sys.orig_argv[1:], sys.path, os.getcwd(), __name__, sys.stdin.read(), sorted(os.environ)]
print(json.dumps(facts), neighbour.__file__, "ddo_plugin" in sys.modules)
atexit.register(print, "at exit")
"""
SCRIPTS = {
    "facts": FACTS,
    "status": "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)",
    "message": "raise SystemExit('what is wrong')",
    "fails": "def fail():\n    raise KeyError('lost')\nfail()",
    "exec": "import os, sys; os.execve(sys.executable, [sys.executable, 'facts.py'], os.environ)",
    "kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("way", ["script", "module", "code"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_fork_prints_and_returns_what_an_interpreter_of_its_own_does(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script, code in SCRIPTS.items():
        (tmp_path / f"{script}.py").write_text(code)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/neighbour.py").touch()
    (tmp_path / "site/sitecustomize.py").write_text("print('site')")
    command = {"script": [f"{name}.py"], "module": ["-m", name], "code": ["-c", SCRIPTS[name]]}[way]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "MINE": "1"}
    fork = run_python([*command, "--flag", "a b"], cwd=tmp_path, env=env)
    monkeypatch.setenv(FORKS_VARIABLE, "0")
    own = run_python([*command, "--flag", "a b"], cwd=tmp_path, env=env)
    assert (fork.returncode, fork.stdout) == (own.returncode, own.stdout)
    if (name, way) != ("fails", "module"):  # runpy's own lines stand in that of an interpreter
        assert fork.stderr == own.stderr
