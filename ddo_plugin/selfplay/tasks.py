"""Tasks: commands whose output is named by what made it, so that a finished one is never run again."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ddo_plugin.progress import read_fraction
from ddo_plugin.records import Command
from ddo_plugin.selfplay.executor import LocalExecutor
from ddo_plugin.selfplay.journal import Journal


@dataclass(frozen=True)
class Task:
    """One command and what it makes. `cost` weighs it in the progress bar, in seconds or anything like them."""

    name: str
    out: Path
    command: Command
    cost: float = 1.0


def key(made_from: Mapping[str, Any]) -> str:
    """A short name for everything that determines an output, the versions of what computes it included."""
    versions = {name: version(name) for name in ("ddo-plugin", "torch", "numpy")}
    told = json.dumps([versions, made_from], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:10]


class Runner:
    """Runs tasks through an executor and records them in a journal. Tasks may run in several threads."""

    def __init__(self, root: Path, journal: Journal, executor: LocalExecutor):
        self.root, self.journal, self.executor = root, journal, executor
        self._finished: dict[Path, float] = {}
        self._running: dict[Path, tuple[Task, Path]] = {}
        self._lock = threading.Lock()
        self._one_at_a_time: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)

    def run(self, task: Task) -> Path:
        """Run the task if its output is not there yet; returns the output. Two threads may want the same one."""
        name = self.relative(task.out)
        with self._lock:
            mine = self._one_at_a_time[task.out]
        with mine:
            if not (self.journal.find("finished", out=name) and task.out.exists()):
                self._execute(task)
                self.journal.append("finished", task=task.name, out=name)
        with self._lock:
            self._finished[task.out] = task.cost
        return task.out

    def relative(self, path: Path) -> str:
        """A path as the journal names it: a run's folder may be moved, what lies outside it may not."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def key(self, made_from: Mapping[str, Any]) -> str:
        """The key of settings whose paths may lie in the run's folder: it stays the same when the folder moves."""
        return key(
            {name: self.relative(value) if isinstance(value, Path) else value for name, value in made_from.items()}
        )

    def _execute(self, task: Task) -> None:
        progress = task.out.with_name(task.out.name + ".progress")
        with self._lock:
            self._running[task.out] = (task, progress)
        try:
            self.executor.run(task.command, task.out.with_name(task.out.name + ".log"), progress)
        finally:
            with self._lock:
                del self._running[task.out]

    def state(self) -> tuple[float, list[tuple[str, float]]]:
        """Cost done so far, and the running tasks with the share of each that is done."""
        with self._lock:
            running = [(task, read_fraction(progress)) for task, progress in self._running.values()]
            done = sum(self._finished.values())
        return done + sum(task.cost * share for task, share in running), [(task.name, share) for task, share in running]
