"""Several pieces of a round at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from ddo_plugin.jobs.executor import StoppedError

Result = TypeVar("Result")


def together(calls: Sequence[Callable[[], Result]], stop: Callable[[], None]) -> list[Result]:
    """The results of all calls, in their order. The first to fail stops the others, and its exception is raised."""
    if len(calls) <= 1:
        return [call() for call in calls]
    with ThreadPoolExecutor(len(calls)) as threads:
        futures = [threads.submit(call) for call in calls]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.exception() for future in done):
            stop()
    failures = [failure for future in futures if (failure := future.exception())]
    if failures:
        raise min(
            failures, key=lambda failure: isinstance(failure, StoppedError)
        )  # rather than what was merely stopped
    return [future.result() for future in futures]
