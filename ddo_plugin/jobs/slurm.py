"""Runs commands through submitit: as jobs of a Slurm cluster, requeued when they are preempted."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import size_of
from ddo_plugin.base.progress import PARENT_VARIABLE, PROGRESS_VARIABLE
from ddo_plugin.jobs.executor import StepFailedError, StoppedError, appended

POLL_S = 1.0
CANCEL_S = 120.0  # Slurm itself kills what ignores it after half a minute
LOST = -1  # the status of a job that ended without telling its own


@dataclass(frozen=True)
class Job:
    """What a node runs. Preempted, it is queued again, and the command goes on where it stopped."""

    command: Command
    log: Path
    progress: Path

    def __call__(self) -> int:
        told = {PROGRESS_VARIABLE: str(self.progress), PARENT_VARIABLE: str(os.getpid())}
        with appended(self.log) as out:
            return subprocess.call(
                list(self.command.argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.command.cwd,
                env={**os.environ, **told, **self.command.env},
            )

    def checkpoint(self) -> Any:
        """submitit asks for this when a job is preempted or out of time: what to queue in its place."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class ScheduledExecutor:
    """At most `slots` jobs at a time. `run` blocks its thread until the job has ended; `stop` cancels all of them."""

    def __init__(self, slots: int, folder: Path, parameters: Mapping[str, Any], cluster: str = "slurm"):
        if find_spec("submitit") is None:
            raise UserError("resources.executor = 'slurm' needs submitit: pip install 'ddo-plugin[slurm]'")
        import submitit

        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self._executor.update_parameters(**parameters)
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise UserError(f"resources.slurm cannot be used: {' '.join(str(error).split())}") from None
        self._folder, self._cluster = folder, cluster
        self._slots = threading.Semaphore(slots)
        self._submitting = threading.Lock()
        self.stopping = threading.Event()

    def run(
        self,
        command: Command,
        log: Path,
        progress: Path,
        name: str = "",
        during: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Wait for a slot, then run the command as a job, `during` around it."""
        with self._slots:
            begun = size_of(log)
            if self.stopping.is_set():
                raise StoppedError
            with during or contextlib.nullcontext():
                log.parent.mkdir(parents=True, exist_ok=True)
                progress.unlink(missing_ok=True)
                with self._submitting:
                    job = self._executor.submit(Job(command, log, progress))
                status = self._status_of(job)
                progress.unlink(missing_ok=True)
        if status != 0:
            raise StepFailedError(command, status, log, name, begun)

    def stop(self) -> None:
        """Every thread cancels its own job."""
        self.stopping.set()

    def cancel_leftovers(self) -> None:
        """Cancel the jobs of an earlier run that was killed, and wait for their end; submitit's folder names them."""
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
            return max(map(int, job.results()), key=abs)  # one of each node
        except (FailedJobError, UncompletedJobError):
            return LOST


def _queued(jobs: Sequence[str]) -> bool:
    asked = ["squeue", "--noheader", "--jobs", ",".join(jobs)]
    return bool(subprocess.run(asked, check=False, capture_output=True).stdout.strip())
