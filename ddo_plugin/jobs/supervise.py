"""The start and the end of a run: it locks its folder, shows one line of progress, and leaves no command behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ddo_plugin.jobs.executor import Executor
from ddo_plugin.jobs.folder_lock import hold
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.jobs.leftovers import end_leftovers
from ddo_plugin.jobs.progress_line import ProgressLine
from ddo_plugin.jobs.runner import NO_POLICY, Policy, Runner

Result = TypeVar("Result")


@contextmanager
def open_runner(out: Path, executor: Executor, settings: str, policy: Policy = NO_POLICY) -> Iterator[Runner]:
    """Lock the folder and yield a runner for it. `settings` is the key of everything that the run is asked to do."""
    with hold(out):
        root = out.resolve()
        end_leftovers(root)
        executor.cancel_leftovers()
        runner = Runner(root, Journal(root / FILE_NAME), executor, policy)
        runner.journal.begin(settings)
        yield runner


def supervise(runner: Runner, total_cost: float, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run all jobs at the same time and show their progress. If a job fails or is interrupted, end all commands."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        try:
            futures = [threads.submit(job) for job in jobs]
            ProgressLine(runner, total_cost).show_until(futures)
        except BaseException:
            runner.executor.stop()
            raise
    return [future.result() for future in futures]
