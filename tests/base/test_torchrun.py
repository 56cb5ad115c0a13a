"""How `python -m ddo_plugin.base.torchrun` ends: as its ranks do, if these said what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import run_python

TWO = ["--standalone", "--nproc_per_node=2"]


def command(tmp_path: Path, code: str, *options: str) -> list[str]:
    script = tmp_path / "script.py"
    script.write_text(code)
    return ["-m", "ddo_plugin.base.torchrun", *options, str(script)]


def run(tmp_path: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # else torchrun speaks of it
    return run_python(command(tmp_path, code, *options), env=env)


REFUSES = """
from ddo_plugin.base.errors import {kind}, in_one_line
with in_one_line():
    raise {kind}("nothing is there")
"""


@pytest.mark.parametrize(("kind", "status"), [("UserError", 2), ("CollapseError", 3)])
def test_what_the_ranks_say_is_all_that_is_said(kind: str, status: int, tmp_path: Path) -> None:
    done = run(tmp_path, REFUSES.format(kind=kind), *TWO)
    assert done.returncode == status
    ours = {line for line in done.stderr.splitlines() if "] torch.distributed" not in line}  # torch 2.1 logs it besides
    assert ours == {"Error: nothing is there"}


def test_an_error_of_another_rank_is_said_too(tmp_path: Path) -> None:
    code = "import os, time\nif os.environ['RANK'] == '0':\n    time.sleep(60)\n" + REFUSES.format(kind="UserError")
    done = run(tmp_path, code, *TWO)
    assert (done.returncode, done.stderr.count("Error: nothing is there")) == (2, 1)


@pytest.mark.usefixtures("own_interpreters")
def test_a_crash_says_all_that_torchrun_says(tmp_path: Path) -> None:
    done = run(tmp_path, "raise KeyError('lost')", "--standalone", "--nproc_per_node=1")
    assert done.returncode == 1
    assert "KeyError: 'lost'" in done.stderr and "ChildFailedError" in done.stderr


def test_a_signal_ends_it_without_a_traceback(tmp_path: Path) -> None:
    code = f"import pathlib, time\npathlib.Path({str(tmp_path / 'begun')!r}).touch()\ntime.sleep(60)"
    argv = [sys.executable, *command(tmp_path, code, *TWO)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM


def test_options_that_torchrun_cannot_take(tmp_path: Path) -> None:
    done = run(tmp_path, "", "--nproc_per_node=0")
    assert done.returncode == 2
    assert "Error: torchrun cannot start `--nproc_per_node=0 " in done.stderr and "Traceback" not in done.stderr
