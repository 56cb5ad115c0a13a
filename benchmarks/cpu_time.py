"""Processor time of functions, which other programs on the machine hardly affect."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Cost(NamedTuple):
    """Seconds of a call: of all threads of this process on a processor, and by the clock."""

    cpu: float
    wall: float


def costs(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Cost]:
    """Return the median cost of each way. The ways take turns, and the first turn does not count."""
    calls: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            way()
            calls[name].append(Cost(time.process_time() - cpu, time.perf_counter() - wall))
    return {name: Cost(*map(statistics.median, zip(*found[1:], strict=True))) for name, found in calls.items()}


def medians(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median CPU seconds of each way."""
    return {name: cost.cpu for name, cost in costs(ways, repeats).items()}


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next allocation, as torch does on a GPU.

    Otherwise the system clears new pages in every step, which takes up to a tenth of the step's time.
    """
    never_map, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD in malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(never_map, 0)
    mallopt(trim_threshold, 2**31 - 1)
