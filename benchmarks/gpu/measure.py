"""Time, memory, waits and profiles of functions, side by side in one process."""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import re
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.results import out

Way = Callable[[], object]
ON_CPU = os.environ.get("DDO_DEVICE") == "cpu"
DEVICE = torch.device("cpu" if ON_CPU else "cuda")
WARM_UP = 1 if ON_CPU else 2
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
PROFILE_ROWS = 10


def machine() -> dict[str, str]:
    """Return the name of the device and the version of torch, for each result."""
    return {"device": "cpu" if ON_CPU else torch.cuda.get_device_name(), "torch": torch.__version__}


def synchronize() -> None:
    if not ON_CPU:
        torch.cuda.synchronize()


class Timing(NamedTuple):
    """Median milliseconds of each way, and how many calls of each were counted."""

    ms: dict[str, float]
    turns: int


def time_ways(ways: Mapping[str, Way], repeats: int, seconds: float = 30.0) -> Timing:
    """Time all ways. They take turns, and the first turns do not count.

    A way that fails is left out and its error printed; no turn starts after `seconds`.
    """
    working, times, turns = dict(ways), {name: list[float]() for name in ways}, 0
    begin = time.perf_counter()
    for turn in range(WARM_UP + repeats):
        if turn > WARM_UP and time.perf_counter() - begin > seconds:
            break
        turns = turn + 1 - WARM_UP
        for name, way in list(working.items()):
            try:
                synchronize()
                start = time.perf_counter()
                way()
                synchronize()
                if turn >= WARM_UP:
                    times[name].append((time.perf_counter() - start) * 1000)
            except Exception:
                traceback.print_exc()
                del working[name]
    return Timing({name: round(statistics.median(times[name]), 3) for name in working}, turns)


def peak_gib(way: Way) -> float | None:
    """Return the peak of the memory that tensors take during a call, with all that was there before."""
    if ON_CPU:
        return None
    release()
    torch.cuda.reset_peak_memory_stats()
    way()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 2**30, 3)


def static_gib(parameters: int) -> float:
    """Return the memory of weights, gradients, two moments of Adam and the reference, all in fp32."""
    return round(parameters * 4 * 5 / 2**30, 3)


def release() -> None:
    """Give cached memory back."""
    gc.collect()
    if not ON_CPU:
        torch.cuda.empty_cache()


def largest_batch(batch: int, try_batch: Callable[[int], object]) -> int:
    """Return `batch`, or half of it as often as needed, so that the steps fit into memory."""
    while True:
        try:
            try_batch(batch)
            return batch
        except torch.cuda.OutOfMemoryError:
            if batch <= 2:
                raise
            print(f"a batch of {batch} does not fit into memory", flush=True)
            batch //= 2
        release()


def waits(way: Way) -> dict[str, int]:
    """Return the lines of Python that make the CPU wait for the GPU during a call, and how often.

    Statistics are read from the GPU in one of many steps; the calls without this step have the fewest waits.
    """
    return min((_waits_once(way) for _ in range(3)), key=lambda places: sum(places.values()))


def _waits_once(way: Way) -> dict[str, int]:
    if ON_CPU:
        way()
        return {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            way()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [f"{_short(w.filename)}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message)]
    return dict(collections.Counter(places))


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-3:])


def profile(way: Way, name: str) -> dict[str, Any]:
    """Profile a call. Write the whole table to $OUT, and return the first rows and the number of waits."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if not ON_CPU:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as recorded:
        way()
        synchronize()
    averages = recorded.key_averages()
    by = "self_cpu_time_total" if ON_CPU else "self_device_time_total"
    (out() / f"profile-{name}.txt").write_text(averages.table(sort_by=by, row_limit=60))
    kernels = [row for row in averages if ON_CPU or (row.device_type.name == "CUDA" and not row.is_user_annotation)]
    milliseconds = {row.key: getattr(row, by) / 1000 for row in kernels}
    largest = sorted(kernels, key=lambda row: milliseconds[row.key], reverse=True)[:PROFILE_ROWS]
    return {
        "rows": [
            {"name": _kernel(row.key), "ms": round(milliseconds[row.key], 3), "calls": row.count} for row in largest
        ],
        "total ms": round(sum(milliseconds.values()), 3),
        "waits": {row.key: row.count for row in averages if row.key in WAITS},
    }


def _kernel(name: str) -> str:
    """Return the name of a kernel without its template arguments, which can take pages."""
    return re.sub(r"<.*", "", name.removeprefix("void "))[:80]


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
