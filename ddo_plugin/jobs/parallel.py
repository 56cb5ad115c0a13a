"""Function calls that run at the same time, in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from ddo_plugin.jobs.executor import StoppedError

Result = TypeVar("Result")


def run_in_parallel(calls: Sequence[Callable[[], Result]], stop: Callable[[], None]) -> list[Result]:
    """Return the results of all calls, in order. If a call fails, call `stop` and raise its exception."""
    if len(calls) <= 1:
        return [call() for call in calls]
    with ThreadPoolExecutor(len(calls)) as threads:
        futures = [threads.submit(call) for call in calls]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.exception() for future in done):
            stop()
    failures = [failure for future in futures if (failure := future.exception())]
    if failures:
        # Prefer the exception that caused the others.
        raise min(failures, key=lambda failure: isinstance(failure, StoppedError))
    return [future.result() for future in futures]
