"""Commands on this machine: logs, statuses, slots, and no child left behind."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.progress import PARENT_VARIABLE, PROGRESS_VARIABLE
from ddo_plugin.jobs import executor as module
from ddo_plugin.jobs.executor import LocalExecutor, StepFailedError, StoppedError


def python(code: str, *arguments: object, **env: str) -> Command:
    return Command([sys.executable, "-c", code, *map(str, arguments)], env)


def run(executor: LocalExecutor, command: Command, folder: Path, name: str = "step") -> str:
    with executor.slot() as slot:
        executor.run(slot, command, folder / f"{name}.log", folder / f"{name}.progress")
    return (folder / f"{name}.log").read_text()


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_both_streams_go_to_the_log_and_a_second_attempt_is_added(tmp_path: Path) -> None:
    executor = LocalExecutor()
    command = python("import sys; print('out', flush=True); print('err', file=sys.stderr)")
    assert run(executor, command, tmp_path / "new").split() == ["out", "err"]
    assert run(executor, command, tmp_path / "new").split() == ["out", "err", "out", "err"]


def test_a_second_attempt_begins_a_line_of_the_log_where_a_kill_cut_the_last_one_short(tmp_path: Path) -> None:
    (tmp_path / "step.log").write_text("Error: colla")
    assert run(LocalExecutor(), python("print('again')"), tmp_path) == "Error: colla\nagain\n"


def test_a_failure_carries_status_command_log_and_last_words(tmp_path: Path) -> None:
    code = "import sys; print(*range(100), sep='\\n', flush=True); sys.exit('no such device')"
    with pytest.raises(StepFailedError) as failed:
        run(LocalExecutor(), python(code), tmp_path)
    assert failed.value.status == 1
    assert failed.value.log == tmp_path / "step.log"
    assert failed.value.tail.splitlines()[-1] == "no such device"
    assert len(failed.value.tail.splitlines()) == module.TAIL_LINES
    assert str(tmp_path / "step.log") in str(failed.value)


def test_a_failure_does_not_speak_for_an_earlier_attempt(tmp_path: Path) -> None:
    (tmp_path / "step.log").write_text("Error: [Errno 28] No space left on dev")
    with pytest.raises(StepFailedError) as failed:
        run(LocalExecutor(), python("raise SystemExit('no such device')"), tmp_path)
    assert failed.value.words == failed.value.tail.strip() == "no such device"


def test_a_killed_command_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StepFailedError) as failed:
        run(LocalExecutor(), python("import os; os.kill(os.getpid(), 9)"), tmp_path)
    assert failed.value.status == -9


def test_a_command_that_cannot_be_started_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot start `no-such-program --x`: .*No such file"):
        run(LocalExecutor(), Command(["no-such-program", "--x"]), tmp_path)
    with pytest.raises(UserError, match="cannot start"):
        run(LocalExecutor(), Command([sys.executable], cwd=tmp_path / "nowhere"), tmp_path)


def test_a_slot_is_free_again_after_a_failure(tmp_path: Path) -> None:
    executor = LocalExecutor(slots=1)
    for command in (python("raise SystemExit(1)"), Command(["no-such-program"])):
        with pytest.raises((StepFailedError, UserError)):
            run(executor, command, tmp_path)
    assert run(executor, python("print('fine')"), tmp_path, "after") == "fine\n"


def test_a_command_gets_its_environment_its_folder_and_no_input(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['MINE'], os.getcwd(), repr(sys.stdin.read()))"
    command = Command([sys.executable, "-c", code], {"MINE": "yes"}, tmp_path)
    assert run(LocalExecutor(), command, tmp_path).split() == ["yes", str(tmp_path), "''"]


def test_the_number_of_threads_is_passed_on_unless_the_command_sets_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    assert run(LocalExecutor(), python(code), tmp_path, "free") == "None\n"
    assert run(LocalExecutor(threads_per_command=3), python(code), tmp_path, "three") == "3\n"
    assert run(LocalExecutor(threads_per_command=3), python(code, OMP_NUM_THREADS="5"), tmp_path, "own") == "5\n"


def test_the_progress_file_is_there_while_the_command_runs_and_not_longer(tmp_path: Path) -> None:
    progress = tmp_path / "step.progress"
    progress.write_text('{"done": 9, "total": 10}')  # of an earlier attempt that was killed
    code = f"import os; p = os.environ['{PROGRESS_VARIABLE}']; print(os.path.exists(p)); open(p, 'w').close()"
    assert run(LocalExecutor(), python(code), tmp_path) == "False\n"
    assert not progress.exists()


def test_a_command_knows_its_executor(tmp_path: Path) -> None:
    code = f"import os; print(os.environ['{PARENT_VARIABLE}'], os.getppid())"
    assert run(LocalExecutor(), python(code), tmp_path).split() == [str(os.getpid())] * 2


@pytest.mark.parametrize("slots", [1, 2])
def test_at_most_so_many_commands_run_at_once_as_there_are_slots(tmp_path: Path, slots: int) -> None:
    code = """
import os, sys, time
os.mkdir(sys.argv[1])
time.sleep(0.15)
print(len(os.listdir(os.path.dirname(sys.argv[1]))))
os.rmdir(sys.argv[1])
"""
    (tmp_path / "here").mkdir()
    executor = LocalExecutor(slots)
    with ThreadPoolExecutor(4) as threads:
        commands = [python(code, tmp_path / "here" / str(i)) for i in range(4)]
        counts = list(threads.map(lambda n: int(run(executor, commands[n], tmp_path, str(n))), range(4)))
    assert max(counts) == slots


# -- stopping ---------------------------------------------------------------------------------------------------------

SLEEPER = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1] + ".tmp").write_text(str(os.getpid()))
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(60)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + SLEEPER
WITH_A_CHILD = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]]).wait()
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
@pytest.mark.parametrize("kind", ["plain", "stubborn", "with-a-child"])
def test_stop_ends_commands_and_what_they_started_and_refuses_what_waits(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.3)
    pid_file = tmp_path / "pid"
    command = {
        "plain": python(SLEEPER, pid_file),
        "stubborn": python(STUBBORN, pid_file),
        "with-a-child": python(WITH_A_CHILD, pid_file, SLEEPER),
    }[kind]
    executor = LocalExecutor(slots=1)
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(run, executor, command, tmp_path)
        wait_for(pid_file)
        waiting = threads.submit(run, executor, python("open('started', 'w')"), tmp_path, "waiting")
        executor.stop()
        for future in (running, waiting):
            with pytest.raises(StoppedError):
                future.result(timeout=10)
    pid = int(pid_file.read_text())
    end = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_running(pid)
    assert not (tmp_path / "waiting.log").exists()
    with pytest.raises(StoppedError):
        run(executor, python(""), tmp_path, "later")


def test_stop_without_commands_and_stop_twice_do_nothing(tmp_path: Path) -> None:
    executor = LocalExecutor()
    run(executor, python(""), tmp_path)
    executor.stop()
    executor.stop()
