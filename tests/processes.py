"""Run `python ARGUMENTS` in tests, as a fork of an interpreter that has already imported torch.

Importing torch and what its optimizers need takes about 3 seconds, which is most of what a small command costs.
With DDO_TEST_FORKS=0 in the environment, each command starts its own interpreter instead.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

SERVER = Path(__file__).with_name("fork_server.py")
FORKS_VARIABLE = "DDO_TEST_FORKS"
OWN_INTERPRETER = ("PYTHONWARNINGS", "LD_PRELOAD")  # Python reads these before a fork could set them


class ForkServer:
    """A process that forks itself for each command, and the files that its forks print to."""

    def __init__(self) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="ddo-forks-")
        folder = Path(self.temporary.name)
        self.out, self.err = folder / "stdout", folder / "stderr"
        self.files = {"stdout": str(self.out), "stderr": str(self.err), "next": str(folder / "next")}
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.lock, pipe = threading.Lock(), subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, str(SERVER)], env=env, stdin=pipe, stdout=pipe, text=True)
        atexit.register(self.process.communicate)  # closes its stdin, so that it ends

    def run(self, arguments: Sequence[str], cwd: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, *arguments]
        answer: dict[str, Any] = {"argv": argv, "env": dict(env)}
        with self.lock:
            self.out.write_bytes(b"")
            self.err.write_bytes(b"")
            while "argv" in answer:  # the first command, then each that os.execve asks for
                answer = self._run(answer["argv"], cwd, answer["env"])
            return subprocess.CompletedProcess(argv, answer["status"], self.out.read_text(), self.err.read_text())

    def _run(self, argv: list[str], cwd: str, env: Mapping[str, str]) -> dict[str, Any]:
        if argv[0] == sys.executable and can_be_forked(argv[1:], env):
            order = {"arguments": argv[1:], "cwd": cwd, "env": env, **self.files}
            print(json.dumps(order), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        with self.out.open("a") as out, self.err.open("a") as err:
            return {"status": subprocess.run(argv, cwd=cwd, env=env, stdout=out, stderr=err, check=False).returncode}


@functools.cache
def server() -> ForkServer:
    return ForkServer()


def can_be_forked(arguments: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether a fork can do what `python ARGUMENTS` does in this environment."""
    if (
        sys.platform != "linux"
        or os.environ.get(FORKS_VARIABLE) == "0"
        or any(env.get(name) for name in OWN_INTERPRETER)
    ):
        return False
    return arguments[0] in ("-m", "-c") or not arguments[0].startswith("-")


def run_python(
    arguments: Sequence[object], *, cwd: Path | str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Return the exit status and the output of `python ARGUMENTS`."""
    words = [str(argument) for argument in arguments]
    env, cwd = dict(os.environ if env is None else env), str(cwd or Path.cwd())
    if can_be_forked(words, env):
        return server().run(words, cwd, env)
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def build_once(folder: Path, build: Callable[[Path], object]) -> Path:
    """Return the folder, filled by `build` unless another worker of this test run has filled it."""
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        complete = folder.with_name(f"{folder.name}.complete")
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # a build that failed may have left something
            folder.mkdir()
            build(folder)
            complete.touch()
    return folder
