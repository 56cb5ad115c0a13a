"""A run's frame: its folder held, its commands ended whatever happens, one line of progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ddo_plugin.jobs.executor import Executor
from ddo_plugin.jobs.folder_lock import hold
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.jobs.leftovers import end_orphans
from ddo_plugin.jobs.progress_line import Board
from ddo_plugin.jobs.runner import NO_POLICY, Policy, Runner

Result = TypeVar("Result")


@contextmanager
def opened(out: Path, executor: Executor, settings: str, policy: Policy = NO_POLICY) -> Iterator[Runner]:
    """A runner that has the folder to itself; `settings` is the key of what this run was asked to do."""
    with hold(out):
        root = out.resolve()
        end_orphans(root)
        executor.cancel_leftovers()
        runner = Runner(root, Journal(root / FILE_NAME), executor, policy)
        runner.journal.begin(settings)
        yield runner


def supervise(runner: Runner, total_cost: float, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run all jobs at once, show how far they are, and end every command if one fails or the user interrupts."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        try:
            futures = [threads.submit(job) for job in jobs]
            Board(runner, total_cost).show_until(futures)
        except BaseException:
            runner.executor.stop()
            raise
    return [future.result() for future in futures]
