"""Tasks: a finished one is never run again, also by two threads and after a restart."""

from __future__ import annotations

import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ddo_plugin.base.commands import Command
from ddo_plugin.jobs import progress_line
from ddo_plugin.jobs import runner as runner_module
from ddo_plugin.jobs.executor import LocalExecutor, StepFailedError
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.jobs.progress_line import ProgressLine
from ddo_plugin.jobs.runner import Runner, Task, key

# Makes its output, and says so in a file that counts.
MAKE = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[1])
with open(out.parent / "count", "a") as file:
    file.write(out.name + "\\n")
time.sleep(float(sys.argv[2]))
out.write_text("made")
"""

FAIL_ONCE = """
import pathlib, sys
tried = pathlib.Path(sys.argv[1] + ".tried")
if not tried.exists():
    tried.touch()
    sys.exit(1)
pathlib.Path(sys.argv[1]).touch()
"""


def runner(root: Path, slots: int = 2) -> Runner:
    return Runner(root, Journal(root / FILE_NAME), LocalExecutor(slots))


def task(out: Path, seconds: float = 0.0, code: str = MAKE, cost: float = 1.0) -> Task:
    return Task(out.name, out, Command([sys.executable, "-c", code, str(out), str(seconds)]), cost)


def made(root: Path) -> list[str]:
    return (root / "count").read_text().split()


def test_a_finished_task_is_not_run_again_also_after_a_restart(tmp_path: Path) -> None:
    first = runner(tmp_path)
    assert first.run(task(tmp_path / "a")) == first.run(task(tmp_path / "a")) == tmp_path / "a"
    assert runner(tmp_path).run(task(tmp_path / "a")) == tmp_path / "a"
    assert made(tmp_path) == ["a"]


def test_a_task_whose_output_was_deleted_is_run_again(tmp_path: Path) -> None:
    runner(tmp_path).run(task(tmp_path / "a"))
    (tmp_path / "a").unlink()
    runner(tmp_path).run(task(tmp_path / "a"))
    assert made(tmp_path) == ["a", "a"]


def test_an_output_of_a_task_that_did_not_finish_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("half")
    runner(tmp_path).run(task(tmp_path / "a"))
    assert (tmp_path / "a").read_text() == "made"


def test_a_failed_task_is_not_recorded_as_finished_and_is_run_again(tmp_path: Path) -> None:
    failing = runner(tmp_path)
    with pytest.raises(StepFailedError):
        failing.run(task(tmp_path / "a", code="raise SystemExit(1)"))
    assert failing.journal.find("finished") == []
    assert failing.state() == (0, [])
    failing.run(task(tmp_path / "a"))
    assert made(tmp_path) == ["a"]


def test_two_threads_that_want_one_output_make_it_once(tmp_path: Path) -> None:
    shared = runner(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: shared.run(task(tmp_path / "a", 0.2)), range(2)))
    assert made(tmp_path) == ["a"]
    assert shared.state() == (1.0, [])


def test_if_the_first_of_two_threads_fails_the_second_tries(tmp_path: Path) -> None:
    shared = runner(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(shared.run, task(tmp_path / "a", code=FAIL_ONCE)) for _ in range(2)]
    assert [type(failure) for failure in (future.exception() for future in futures) if failure] == [StepFailedError]
    assert (tmp_path / "a").exists()


def test_a_moved_folder_goes_on(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    runner(tmp_path / "old").run(
        task(tmp_path / "old" / "sub" / "a", code=MAKE.replace("out.parent", "out.parent.parent"))
    )
    (tmp_path / "old").rename(tmp_path / "new")
    runner(tmp_path / "new").run(task(tmp_path / "new" / "sub" / "a"))
    assert made(tmp_path / "new") == ["a"]


def test_a_key_depends_on_all_that_made_an_output_and_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key({"a": 1, "b": [0.1, None]}) == key({"b": [0.1, None], "a": 1})
    assert key({"a": 1}) != key({"a": 2}) != key({"a": 1, "b": 0})
    now = key({"a": 1})
    monkeypatch.setattr(runner_module, "version", lambda name: "another")
    assert key({"a": 1}) != now


def test_the_key_of_a_path_in_the_runs_folder_survives_a_move(tmp_path: Path) -> None:
    keys = {runner(tmp_path / name).key({"data": tmp_path / name / "data", "lr": 1}) for name in ("old", "new")}
    assert keys == {key({"data": "data", "lr": 1})}
    assert runner(tmp_path).key({"data": Path("/elsewhere")}) == key({"data": "/elsewhere"})


def test_state_tells_what_is_done_and_how_far_the_rest_is(tmp_path: Path) -> None:
    code = """
import os, pathlib, sys, time
from ddo_plugin.base.progress import progress
with progress("x", 4) as counter:
    counter.update()
    while not os.path.exists(sys.argv[1] + ".go"):
        time.sleep(0.01)
"""
    shared = runner(tmp_path)
    shared.run(task(tmp_path / "a", cost=2.0))
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(shared.run, task(tmp_path / "b", code=code, cost=8.0))
        end = time.monotonic() + 20
        while shared.state()[1] != [("b", 0.25)] and time.monotonic() < end:
            time.sleep(0.02)
        state = shared.state()
        (tmp_path / "b.go").touch()
        future.result()
    assert state == (2.0 + 8.0 / 4, [("b", 0.25)])
    assert shared.state() == (10.0, [])


# -- the progress line ------------------------------------------------------------------------------------------------


def test_the_progress_line_follows_a_run_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress_line, "INTERVAL_S", 0.05)
    shared = runner(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        line = ProgressLine(shared, 2.0)
        line.bar.fp = terminal
        line.show_until([threads.submit(shared.run, task(tmp_path / name, 0.2)) for name in "ab"])
    assert line.bar.n == 2.0


def test_the_progress_line_raises_what_a_thread_raised_without_waiting_for_the_others(tmp_path: Path) -> None:
    shared = runner(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(shared.run, task(tmp_path / "slow", 30))
        failing = threads.submit(shared.run, task(tmp_path / "a", code="raise SystemExit(1)"))
        with pytest.raises(StepFailedError):
            ProgressLine(shared, 2.0).show_until([slow, failing])
        assert not slow.done()
        shared.executor.stop()
