"""Progress files, and commands that end with the process that started them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ddo_plugin.base.progress import PARENT_VARIABLE, PROGRESS_VARIABLE, progress, read_fraction

# A command that reports progress for a minute; an executor that starts it and waits.
COMMAND = """
import sys, time
from ddo_plugin.base.progress import progress
with progress("x", 1200) as counter:
    for _ in range(1200):
        counter.update()
        time.sleep(0.05)
"""
EXECUTOR = """
import os, subprocess, sys
argv = sys.argv[1:]
env = os.environ | {"DDO_PARENT": str(os.getpid())}
process = subprocess.Popen(argv, env=env)
print(process.pid, flush=True)
process.wait()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return met


def is_running(pid: int) -> bool:
    """Whether a process runs; one that nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_progress_file_tells_the_share_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "progress"
    monkeypatch.setenv(PROGRESS_VARIABLE, str(file))
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    with progress("x", 4, done=1) as counter:
        assert read_fraction(file) == 0.0
        counter.update()
        assert read_fraction(file) == 0.5
        counter.update(2)
        assert read_fraction(file) == 1.0
    assert names(tmp_path) == ["progress"]


def test_a_run_that_goes_on_starts_its_count_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_VARIABLE, str(tmp_path / "progress"))
    with progress("x", 10, done=8) as counter:
        counter.update()
    assert json.loads((tmp_path / "progress").read_text()) == {"done": 9, "total": 10}


def test_frequent_updates_do_not_write_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "progress"
    monkeypatch.setenv(PROGRESS_VARIABLE, str(file))
    with progress("x", 10_000) as counter:
        counter.update()
        first = file.stat().st_ino
        counter.update()
        assert file.stat().st_ino == first


@pytest.mark.parametrize("contents", [None, "", '{"done": 1, "to', '{"done": 0, "total": 0}'])
def test_a_progress_file_that_says_nothing_is_no_progress(tmp_path: Path, contents: str | None) -> None:
    if contents is not None:
        (tmp_path / "progress").write_text(contents)
    assert read_fraction(tmp_path / "progress") == 0.0


def test_more_than_all_is_all(tmp_path: Path) -> None:
    (tmp_path / "progress").write_text('{"done": 3, "total": 2}')
    assert read_fraction(tmp_path / "progress") == 1.0


def test_without_an_executor_no_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRESS_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with progress("x", 1) as counter:
        counter.update()
    assert names(tmp_path) == []


def test_several_ranks_may_share_a_progress_file(tmp_path: Path) -> None:
    code = """
from ddo_plugin.base import progress
progress._INTERVAL_S = 0
with progress.progress("x", 100) as counter:
    for _ in range(100):
        counter.update()
"""
    env = os.environ | {PROGRESS_VARIABLE: str(tmp_path / "progress")}
    ranks = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(4)]
    assert [rank.wait() for rank in ranks] == [0, 0, 0, 0]
    assert names(tmp_path) == ["progress"]


LAUNCHER = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
@pytest.mark.parametrize("launcher", [[], [sys.executable, "-c", LAUNCHER]], ids=["direct", "through-a-launcher"])
def test_a_command_ends_when_its_executor_was_killed_and_not_before(tmp_path: Path, launcher: list[str]) -> None:
    file = tmp_path / "progress"
    command = [*launcher, COMMAND] if launcher else [sys.executable, "-c", COMMAND]
    executor = subprocess.Popen(
        [sys.executable, "-c", EXECUTOR, *command],
        env=os.environ | {PROGRESS_VARIABLE: str(file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert executor.stdout
        pid = int(executor.stdout.readline())
        assert wait_until(file.exists)
        seen = file.read_text()
        assert wait_until(lambda: file.read_text() != seen)  # it has looked for its executor, and goes on
        assert is_running(pid)
    finally:
        executor.kill()
        executor.wait()
    assert wait_until(lambda: not is_running(pid), 5)


def test_of_several_ranks_one_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "progress"
    monkeypatch.setenv(PROGRESS_VARIABLE, str(file))
    with progress("x", 4, shown=False) as counter:
        counter.update(4)
    assert not file.exists()
    with progress("x", 4, 1, shown=True) as counter:
        counter.update(3)
    assert read_fraction(file) == 1
