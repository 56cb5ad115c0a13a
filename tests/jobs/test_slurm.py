"""Commands as submitit's jobs: with its local and debug executors, and the script that Slurm would get."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import UserError
from ddo_plugin.jobs import slurm as scheduled
from ddo_plugin.jobs.executor import StepFailedError, StoppedError
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.jobs.runner import Runner, Task
from ddo_plugin.jobs.slurm import Job, ScheduledExecutor

submitit = pytest.importorskip("submitit", reason="needs the extra `slurm`")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled, "POLL_S", 0.05)


def python(code: str) -> Command:
    return Command([sys.executable, "-S", "-c", code], {"MINE": "yes"})


def run(executor: ScheduledExecutor, command: Command, log: Path, progress: Path, name: str = "") -> None:
    with executor.slot() as slot:
        executor.run(slot, command, log, progress, name)


@pytest.mark.parametrize("cluster", ["debug", "local"])
def test_a_job_runs_the_command_with_its_environment_and_log(tmp_path: Path, cluster: str) -> None:
    executor = ScheduledExecutor(1, tmp_path / "jobs", {"timeout_min": 1}, cluster)
    command = python("import os; print(os.environ['MINE'], os.path.basename(os.environ['DDO_PROGRESS']))")
    run(executor, command, tmp_path / "a" / "log", tmp_path / "a" / "progress")
    assert (tmp_path / "a" / "log").read_text() == "yes progress\n"


@pytest.mark.parametrize("cluster", ["debug", "local"])
def test_a_jobs_status_is_the_commands(tmp_path: Path, cluster: str) -> None:
    executor = ScheduledExecutor(1, tmp_path / "jobs", {"timeout_min": 1}, cluster)
    with pytest.raises(StepFailedError) as failed:
        run(executor, python("raise SystemExit(3)"), tmp_path / "log", tmp_path / "progress", "training")
    assert (failed.value.status, failed.value.name) == (3, "training")


def test_a_job_on_several_nodes_has_the_status_of_the_one_that_failed(tmp_path: Path) -> None:
    parameters = {"timeout_min": 1, "tasks_per_node": 2}
    executor = ScheduledExecutor(1, tmp_path / "jobs", parameters, "local")
    code = "import os; raise SystemExit(3 * (os.environ['SUBMITIT_LOCAL_LOCALID'] == '1'))"
    with pytest.raises(StepFailedError) as failed:
        run(executor, python(code), tmp_path / "log", tmp_path / "progress")
    assert failed.value.status == 3
    run(executor, python("print('both')"), tmp_path / "other", tmp_path / "progress")
    assert (tmp_path / "other").read_text() == "both\n" * 2


def test_stop_cancels_what_runs_and_refuses_what_comes(tmp_path: Path) -> None:
    executor, raised = ScheduledExecutor(1, tmp_path / "jobs", {"timeout_min": 1}, "local"), []

    def attempt() -> None:
        try:
            run(executor, python("import time; print(1, flush=True); time.sleep(20)"), tmp_path / "log", tmp_path / "p")
        except StoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    end = time.monotonic() + 30
    while not ((tmp_path / "log").exists() and (tmp_path / "log").read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    executor.stop()
    thread.join(15)
    assert len(raised) == 1
    with pytest.raises(StoppedError):
        run(executor, python(""), tmp_path / "log", tmp_path / "p")


def test_tasks_run_through_it_as_they_do_on_this_machine(tmp_path: Path) -> None:
    executor = ScheduledExecutor(2, tmp_path / "jobs", {"timeout_min": 1}, "local")
    runner = Runner(tmp_path, Journal(tmp_path / FILE_NAME), executor)
    task = Task("one", tmp_path / "out", python(f"open({str(tmp_path / 'out')!r}, 'a').write('made')"))
    assert runner.run(task) == runner.run(task) == tmp_path / "out"
    assert (tmp_path / "out").read_text() == "made"
    assert [fact["fact"] for fact in runner.journal.facts] == ["started", "finished"]


def test_a_preempted_job_asks_to_be_queued_again_as_it_was(tmp_path: Path) -> None:
    job = Job(python(""), tmp_path / "log", tmp_path / "progress")
    again = job.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert again.function is job


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs under Slurm's names that note how they were called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    answers = {"srun": "", "scancel": "", "sbatch": "Submitted batch job 71", "sacct": "", "squeue": ""}
    for name, answer in answers.items():
        file = programs / name
        file.write_text(f'#!/bin/sh\necho {name} "$@" >> {programs}/calls\nprintf "%s" "{answer}"\n')
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return programs


def test_the_script_for_slurm_asks_for_what_the_recipe_says_and_can_be_requeued(tmp_path: Path, slurm: Path) -> None:
    parameters = {"slurm_partition": "gpu", "gpus_per_node": 8, "nodes": 2, "timeout_min": 60}
    executor = ScheduledExecutor(2, tmp_path / "jobs", parameters)
    executor._executor.submit(Job(python(""), tmp_path / "log", tmp_path / "progress"))
    script = (tmp_path / "jobs" / "71_submission.sh").read_text()
    for line in ("--partition=gpu", "--gpus-per-node=8", "--nodes=2", "--time=60", "--signal=USR2@90"):
        assert f"#SBATCH {line}" in script
    assert "--open-mode=append" in script


def test_jobs_that_a_killed_run_left_are_cancelled(tmp_path: Path, slurm: Path) -> None:
    executor = ScheduledExecutor(2, tmp_path / "jobs", {"timeout_min": 60})
    executor.cancel_leftovers()
    assert not (slurm / "calls").exists() or "scancel" not in (slurm / "calls").read_text()
    for name in ("70_submitted.pkl", "70_0_result.pkl", "71_submitted.pkl"):
        (tmp_path / "jobs").mkdir(exist_ok=True)
        (tmp_path / "jobs" / name).touch()
    executor.cancel_leftovers()
    assert (slurm / "calls").read_text().endswith("scancel 71\nsqueue --noheader --jobs 71\n")


def test_a_parameter_that_submitit_does_not_know_and_a_machine_without_slurm_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot use resources\.slurm"):
        ScheduledExecutor(1, tmp_path / "jobs", {"no_such": 1}, "local")
    with pytest.raises(UserError, match=r"cannot use resources\.slurm: .*srun"):
        ScheduledExecutor(1, tmp_path / "jobs", {}, "slurm")
