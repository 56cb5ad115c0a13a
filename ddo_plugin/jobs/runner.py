"""Tasks: commands whose output is named by what made it, so that a finished one is never run again."""

from __future__ import annotations

import hashlib
import json
import threading
import time
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
from ddo_plugin.jobs.disk_space import Space
from ddo_plugin.jobs.executor import Executor, StepFailedError, StoppedError
from ddo_plugin.jobs.journal import Journal
from ddo_plugin.snapshots import sidecar

ENDS = ("finished", "damaged", "gone")
SIGNALLED = (-15, -2, 130, 143)  # how a command ends that somebody asked to
STOP_WAIT_S = 1.0


@dataclass(frozen=True)
class Policy:
    """What becomes of failures, collapses and old snapshots."""

    retries: int
    allow_failures: bool
    keep: Literal["best", "all"] | int
    stop_on_collapse: float | None


NO_POLICY = Policy(retries=0, allow_failures=False, keep="all", stop_on_collapse=None)


@dataclass(frozen=True)
class Task:
    """One command and what it makes. `cost` weighs it in the progress bar, in seconds or anything like them."""

    name: str
    out: Path
    command: Command
    cost: float = 1.0
    kind: str = ""  # tasks of one kind take about as long, and as much room
    uses: tuple[Path, ...] = ()  # networks that have to be whole before it starts
    part: int | None = None  # of a training that pauses after so many snapshots; None: the whole


class DamagedError(UserError):
    """A snapshot is not what its sidecar says."""


def key(made_from: Mapping[str, Any]) -> str:
    """A short name for everything that determines an output, the versions of what computes it included."""
    versions = {name: version(name) for name in ("ddo-plugin", "torch", "numpy")}
    told = json.dumps([versions, made_from], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:10]


class Folder:
    """A run's folder, and the names that things in it have."""

    def __init__(self, root: Path):
        self.root = root

    def relative(self, path: Path) -> str:
        """A path as the journal names it: a run's folder may be moved, what lies outside it may not."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def key(self, made_from: Mapping[str, Any]) -> str:
        """The key of settings whose paths may lie in the run's folder: it stays the same when the folder moves."""
        return key(
            {name: self.relative(value) if isinstance(value, Path) else value for name, value in made_from.items()}
        )


class Runner(Folder):
    """Runs tasks through an executor and records them in a journal. Tasks may run in several threads."""

    def __init__(self, root: Path, journal: Journal, executor: Executor, policy: Policy | None = None):
        super().__init__(root)
        self.journal, self.executor, self.policy = journal, executor, policy or NO_POLICY
        self._space = Space(root, journal)
        self._finished: dict[tuple[Path, int | None], float] = {}
        self._running: dict[Path, tuple[Task, Path]] = {}
        self._checked: dict[Path, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._one_at_a_time: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)

    def run(self, task: Task, may_fail: bool = False) -> Path:
        """Run the task if its output is not there yet; returns the output. Two threads may want the same one.

        A command that fails is tried again as often as the policy says. `may_fail` tells that the run can do without:
        if the policy allows it, such a task is given up for good, also after a restart.
        """
        with self._lock:
            mine = self._one_at_a_time[task.out]
        with mine:
            if not self.is_finished(task):
                self._run_until_it_succeeds(task, may_fail and self.policy.allow_failures)
        with self._lock:
            self._finished[task.out, task.part] = task.cost
        return task.out

    def is_finished(self, task: Task) -> bool:
        """Whether the task's output is there and whole."""
        end = self._last_end(task)
        if end is None or end["fact"] != "finished" or not task.out.exists():
            return False
        done = end.get("part")
        return done is None or (task.part is not None and done >= task.part)

    def _last_end(self, task: Task) -> dict[str, Any] | None:
        facts = self.journal.about(self.relative(task.out))
        return next((fact for fact in reversed(facts) if fact["fact"] in ENDS), None)

    def check(self, network: Path) -> None:
        """Refuse a snapshot that is not what training wrote."""
        told = sidecar.sha256(network)
        if told is None:
            return
        where = f"restore it, or delete {network.parent}, and it is trained again"
        if not network.exists():
            raise DamagedError(f"{network} is gone, though it is still needed; {where}")
        status = network.stat()
        seen = (status.st_mtime_ns, status.st_size)
        if self._checked.get(network) != seen:
            found = sha256_file(network)
            if found != told:
                raise DamagedError(f"{network} is damaged: its sha256 is {found}, its sidecar says {told}; {where}")
            self._checked[network] = seen

    def _run_until_it_succeeds(self, task: Task, may_fail: bool) -> None:
        name = self.relative(task.out)
        self._note_if_gone(task)
        while True:
            attempt, since = self._attempts(name)
            if may_fail and self._was_given_up(name):
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
        """Else what a killed second attempt leaves would pass for what the first one had finished."""
        end = self._last_end(task)
        if end is not None and end["fact"] == "finished" and not task.out.exists():
            name = self.relative(task.out)
            self.journal.append("gone", out=name, attempt=self._attempts(name)[0])

    def _attempts(self, name: str) -> tuple[int, int]:
        """The number of the next attempt, and how many failed since the task was last given up or finished."""
        facts = [f["fact"] for f in self.journal.about(name)]
        ends = [place for place, fact in enumerate(facts) if fact in ("abandoned", *ENDS)]
        number = 1 + sum(fact in ("failed", *ENDS) for fact in facts)
        return number, facts[ends[-1] if ends else 0 :].count("failed")

    def _was_given_up(self, name: str) -> bool:
        ends = [f["fact"] for f in self.journal.about(name) if f["fact"] in ("abandoned", *ENDS)]
        return ends[-1:] == ["abandoned"]

    def _last_failure(self, task: Task) -> StepFailedError:
        status = self.journal.find("failed", out=self.relative(task.out))[-1]["status"]
        return StepFailedError(task.command, status, _log(task), task.name)

    def _note_failure(self, task: Task, failure: StepFailedError, attempt: int, last: bool) -> None:
        if failure.status == COLLAPSE_STATUS:
            return  # no failure of the command: the caller records what it means
        if failure.status in SIGNALLED and self.executor.stopping.wait(STOP_WAIT_S):
            raise StoppedError
        self._space.explain(failure)
        name = self.relative(task.out)
        log = self.relative(failure.log)
        self.journal.append("failed", task=task.name, out=name, attempt=attempt, status=failure.status, log=log)
        if last:
            self.journal.append("abandoned", task=task.name, out=name, attempts=attempt, log=log)

    def _execute(self, task: Task, attempt: int) -> dict[str, float]:
        """Run the command once: how long it took, and how much room its output takes."""
        for network in task.uses:
            self.check(network)
        times: list[float] = []
        during = self._running_task(task, attempt, times)
        self.executor.run(task.command, _log(task), _progress(task), task.name, during)
        return {"seconds": round(times[1] - times[0], 3), "bytes": size_of(task.out)}

    @contextmanager
    def _running_task(self, task: Task, attempt: int, times: list[float]) -> Iterator[None]:
        """While a command has a slot: there is room for its output, and everybody can see that it runs."""
        with self._space.reserved(task.out, task.kind):
            self.journal.append("started", task=task.name, kind=task.kind, out=self.relative(task.out), attempt=attempt)
            with self._lock:
                self._running[task.out] = (task, _progress(task))
            times.append(time.monotonic())
            try:
                yield
            finally:
                times.append(time.monotonic())
                with self._lock:
                    del self._running[task.out]

    def state(self) -> tuple[float, list[tuple[str, float]]]:
        """Cost done so far, and the running tasks with the share of each that is done."""
        with self._lock:
            running = [(task, read_fraction(progress)) for task, progress in self._running.values()]
            done = sum(self._finished.values())
        return done + sum(task.cost * share for task, share in running), [(task.name, share) for task, share in running]


def _log(task: Task) -> Path:
    return task.out.with_name(task.out.name + ".log")


def _progress(task: Task) -> Path:
    return task.out.with_name(task.out.name + ".progress")
