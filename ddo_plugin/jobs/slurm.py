"""Running commands as jobs of a Slurm cluster, by submitit. A job that is preempted is queued again."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import size_of
from ddo_plugin.base.progress import PARENT_VARIABLE, PROGRESS_VARIABLE
from ddo_plugin.jobs.executor import StepFailedError, StoppedError, appended
from ddo_plugin.jobs.slots import Slot

POLL_S = 1.0
CANCEL_S = 120.0  # Slurm kills a cancelled job that is still alive after half a minute
LOST = -1  # exit status of a job that ended without reporting one


@dataclass(frozen=True)
class Job:
    """What a node runs. If the job is preempted, it is queued again, and the command resumes."""

    command: Command
    log: Path
    progress: Path

    def __call__(self) -> int:
        variables = {PROGRESS_VARIABLE: str(self.progress), PARENT_VARIABLE: str(os.getpid())}
        with appended(self.log) as out:
            return subprocess.call(
                list(self.command.argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.command.cwd,
                env={**os.environ, **variables, **self.command.env},
            )

    def checkpoint(self) -> Any:
        """Return what submitit queues in place of a job that was preempted or ran out of time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class ScheduledExecutor:
    """Submits at most `slots` jobs at a time."""

    def __init__(self, slots: int, folder: Path, parameters: Mapping[str, Any], cluster: str = "slurm"):
        if find_spec("submitit") is None:
            raise UserError("resources.executor = 'slurm' needs submitit: pip install 'ddo-plugin[slurm]'")
        import submitit

        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self._executor.update_parameters(**parameters)
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise UserError(f"cannot use resources.slurm: {' '.join(str(error).split())}") from None
        self._folder, self._cluster = folder, cluster
        self._slots = threading.Semaphore(slots)
        self._submitting = threading.Lock()
        self.stopping = threading.Event()

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Wait until a job may be submitted. The slot is empty, because Slurm assigns GPUs and cores."""
        with self._slots:
            if self.stopping.is_set():
                raise StoppedError
            yield Slot()

    def run(self, slot: Slot, command: Command, log: Path, progress: Path, name: str = "") -> float:
        """Run the command as a job, and return the seconds until its end, which include the time in Slurm's queue."""
        begun, start = size_of(log), time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        progress.unlink(missing_ok=True)
        with self._submitting:
            job = self._executor.submit(Job(command, log, progress))
        status = self._status_of(job)
        progress.unlink(missing_ok=True)
        if status != 0:
            raise StepFailedError(command, status, log, name, begun)
        return time.monotonic() - start

    def stop(self) -> None:
        """Make every thread cancel its own job."""
        self.stopping.set()

    def cancel_leftovers(self) -> None:
        """Cancel the jobs of an earlier run that was killed, and wait for their end. submitit's folder lists them."""
        if self._cluster != "slurm":
            return
        submitted = {path.name.split("_")[0] for path in self._folder.glob("*_submitted.pkl")}
        ended = {path.name.split("_")[0] for path in self._folder.glob("*_result.pkl")}
        left = sorted(submitted - ended)
        if not left:
            return
        subprocess.run(["scancel", *left], check=False, capture_output=True)
        end = time.monotonic() + CANCEL_S
        while _queued(left) and time.monotonic() < end:
            time.sleep(POLL_S)

    def _status_of(self, job: Any) -> int:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        while not job.done():
            if self.stopping.wait(POLL_S):
                job.cancel()
                raise StoppedError
        try:
            return max(map(int, job.results()), key=abs)  # each node has one
        except (FailedJobError, UncompletedJobError):
            return LOST


def _queued(jobs: Sequence[str]) -> bool:
    query = ["squeue", "--noheader", "--jobs", ",".join(jobs)]
    return bool(subprocess.run(query, check=False, capture_output=True).stdout.strip())
