"""Tasks: commands whose output is named by a hash of its inputs, so that a finished task is never run again."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import COLLAPSE_STATUS, UserError
from ddo_plugin.base.files import sha256_file, size_of
from ddo_plugin.base.progress import read_fraction
from ddo_plugin.jobs.disk_space import DiskSpace
from ddo_plugin.jobs.executor import Executor, StepFailedError, StoppedError
from ddo_plugin.jobs.journal import Journal
from ddo_plugin.snapshots import sidecar

ENDS = ("finished", "damaged", "gone")
SIGNALLED = (-15, -2, 130, 143)  # exit statuses of a command that was asked to end
STOP_WAIT_S = 1.0


@dataclass(frozen=True)
class Policy:
    """How a run handles failures, collapses and old snapshots."""

    retries: int
    allow_failures: bool
    keep: Literal["best", "all"] | int
    stop_on_collapse: float | None


NO_POLICY = Policy(retries=0, allow_failures=False, keep="all", stop_on_collapse=None)


@dataclass(frozen=True)
class Task:
    """One command and its output. `cost` is its weight in the progress bar, for instance in seconds."""

    name: str
    out: Path
    command: Command
    cost: float = 1.0
    kind: str = ""  # tasks of one kind take about the same time and disk space
    uses: tuple[Path, ...] = ()  # networks that must be undamaged before the command starts
    part: int | None = None  # number of snapshots after which a training pauses; None: it does not pause


class DamagedError(UserError):
    """A snapshot differs from what its sidecar says."""


def key(made_from: Mapping[str, Any]) -> str:
    """Return a short hash of everything that determines an output, including the versions of the packages."""
    versions = {name: version(name) for name in ("ddo-plugin", "torch", "numpy")}
    text = json.dumps([versions, made_from], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


class RunFolder:
    """The folder of a run, and the names of files in it."""

    def __init__(self, root: Path):
        self.root = root

    def relative(self, path: Path) -> str:
        """Return a path as the journal stores it: relative to the folder, which may be moved, if it lies inside."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def key(self, made_from: Mapping[str, Any]) -> str:
        """Return the key of settings. It stays the same when the folder moves, even if their paths lie in it."""
        return key(
            {name: self.relative(value) if isinstance(value, Path) else value for name, value in made_from.items()}
        )


class Runner(RunFolder):
    """Runs tasks through an executor and records them in a journal. Several threads may run tasks."""

    def __init__(self, root: Path, journal: Journal, executor: Executor, policy: Policy | None = None):
        super().__init__(root)
        self.journal, self.executor, self.policy = journal, executor, policy or NO_POLICY
        self._space = DiskSpace(root, journal)
        self._finished: dict[tuple[Path, int | None], float] = {}
        self._running: dict[Path, tuple[Task, Path]] = {}
        self._checked: dict[Path, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._output_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)

    def run(self, task: Task, may_fail: bool = False) -> Path:
        """Run the task unless it has finished, and return its output. Two threads may ask for the same output.

        A command that fails is tried again as often as the policy says. `may_fail` means that the run can continue
        without the output: if the policy allows failures, the task is then abandoned, also after a restart.
        """
        with self._lock:
            output_lock = self._output_locks[task.out]
        with output_lock:
            if not self.is_finished(task):
                self._run_until_it_succeeds(task, may_fail and self.policy.allow_failures)
        with self._lock:
            self._finished[task.out, task.part] = task.cost
        return task.out

    def is_finished(self, task: Task) -> bool:
        """Return whether the task has finished and its output still exists."""
        end = self._last_end(task)
        if end is None or end["fact"] != "finished" or not task.out.exists():
            return False
        done = end.get("part")
        return done is None or (task.part is not None and done >= task.part)

    def _last_end(self, task: Task) -> dict[str, Any] | None:
        facts = self.journal.about(self.relative(task.out))
        return next((fact for fact in reversed(facts) if fact["fact"] in ENDS), None)

    def check(self, network: Path) -> None:
        """Refuse a snapshot that changed since training wrote it."""
        expected = sidecar.sha256(network)
        if expected is None:
            return
        training = network.parent.parent if sidecar.merge(network) else network.parent
        again = f", or delete {training} to train it again" if network.is_relative_to(self.root) else ""
        remedy = f"restore it{again}"
        if not network.exists():
            raise DamagedError(f"{network} no longer exists, but the run needs it; {remedy}")
        status = network.stat()
        seen = (status.st_mtime_ns, status.st_size)
        if self._checked.get(network) != seen:
            actual = sha256_file(network)
            if actual != expected:
                raise DamagedError(
                    f"{network} is damaged: its sha256 is {actual}, but its sidecar says {expected}; {remedy}"
                )
            self._checked[network] = seen

    def _run_until_it_succeeds(self, task: Task, may_fail: bool) -> None:
        name = self.relative(task.out)
        self._note_if_gone(task)
        while True:
            attempt, since = self._attempts(name)
            if may_fail and self._was_abandoned(name):
                raise self._last_failure(task)
            try:
                measured = self._execute(task, attempt)
            except StepFailedError as failure:
                self._note_failure(task, failure, attempt, last=since >= self.policy.retries)
                if failure.status == COLLAPSE_STATUS or since >= self.policy.retries:
                    raise
            else:
                part = {} if task.part is None else {"part": task.part}
                self.journal.append("finished", task=task.name, kind=task.kind, out=name, **part, measured=measured)
                return

    def _note_if_gone(self, task: Task) -> None:
        """Record that a finished output was deleted. Otherwise an incomplete new output would count as finished."""
        end = self._last_end(task)
        if end is not None and end["fact"] == "finished" and not task.out.exists():
            name = self.relative(task.out)
            self.journal.append("gone", out=name, attempt=self._attempts(name)[0])

    def _attempts(self, name: str) -> tuple[int, int]:
        """Return the number of the next attempt, and of failures since the task was last abandoned or finished."""
        facts = [f["fact"] for f in self.journal.about(name)]
        ends = [place for place, fact in enumerate(facts) if fact in ("abandoned", *ENDS)]
        number = 1 + sum(fact in ("failed", *ENDS) for fact in facts)
        return number, facts[ends[-1] if ends else 0 :].count("failed")

    def _was_abandoned(self, name: str) -> bool:
        ends = [f["fact"] for f in self.journal.about(name) if f["fact"] in ("abandoned", *ENDS)]
        return ends[-1:] == ["abandoned"]

    def _last_failure(self, task: Task) -> StepFailedError:
        status = self.journal.find("failed", out=self.relative(task.out))[-1]["status"]
        return StepFailedError(task.command, status, _log(task), task.name)

    def _note_failure(self, task: Task, failure: StepFailedError, attempt: int, last: bool) -> None:
        if failure.status == COLLAPSE_STATUS:
            return  # not a failure of the command; the caller records the collapse
        if failure.status in SIGNALLED and self.executor.stopping.wait(STOP_WAIT_S):
            raise StoppedError
        self._space.explain(failure)
        name = self.relative(task.out)
        log = self.relative(failure.log)
        self.journal.append("failed", task=task.name, out=name, attempt=attempt, status=failure.status, log=log)
        if last:
            self.journal.append("abandoned", task=task.name, out=name, attempts=attempt, log=log)

    def _execute(self, task: Task, attempt: int) -> dict[str, float]:
        """Run the command once; return its seconds and the size of its output."""
        for network in task.uses:
            self.check(network)
        with self.executor.slot() as slot, self._shown_as_running(task, attempt):
            seconds = self.executor.run(slot, task.command, _log(task), _progress(task), task.name)
        return {"seconds": round(seconds, 3), "bytes": size_of(task.out)}

    @contextmanager
    def _shown_as_running(self, task: Task, attempt: int) -> Iterator[None]:
        """Reserve disk space for the output, and list the task among those that run, during the `with` block."""
        with self._space.reserved(task.out, task.kind):
            self.journal.append("started", task=task.name, kind=task.kind, out=self.relative(task.out), attempt=attempt)
            with self._lock:
                self._running[task.out] = (task, _progress(task))
            try:
                yield
            finally:
                with self._lock:
                    del self._running[task.out]

    def state(self) -> tuple[float, list[tuple[str, float]]]:
        """Return the cost that is done so far, and the running tasks, each with the share that is done."""
        with self._lock:
            running = [(task, read_fraction(progress)) for task, progress in self._running.values()]
            done = sum(self._finished.values())
        return done + sum(task.cost * share for task, share in running), [(task.name, share) for task, share in running]


def _log(task: Task) -> Path:
    return task.out.with_name(task.out.name + ".log")


def _progress(task: Task) -> Path:
    return task.out.with_name(task.out.name + ".progress")
