"""Where EDM's native loop is, and its events, told by the function that it calls on every rank after each tick."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import training.training_loop
from torch_utils import distributed as dist

from ddo_plugin import Finetuning


class Progress:
    """Optimizer steps. A run that goes on starts at whole kimg, between two steps of the one before."""

    def __init__(self, batch_size: int, first_nimg: int):
        self.batch_size, self.first_step = batch_size, first_nimg // batch_size
        self.seen = 0  # images in this process's run, over all ranks

    @property
    def step(self) -> int:
        return self.first_step + self.seen // self.batch_size


_progress: Progress | None = None


def active() -> Progress:
    """The progress of this process's run."""
    assert _progress is not None, "configure comes first"
    return _progress


def watch(run: Finetuning, batch_size: int, first_nimg: int, total_nimg: int) -> None:
    """Report every tick and snapshot. The loop calls `update_progress` as it starts, and after it has written a tick's.

    Its first tick is over after one step. The snapshot of that counts as what the round began with; a run that goes on
    writes none there, for it would take the place of the one that it goes on from, which somebody may have judged.
    """
    global _progress
    progress = _progress = Progress(batch_size, first_nimg)
    original = dist.update_progress
    calls = 0

    @functools.wraps(original)
    def update_progress(kimg: int, total: int) -> None:
        nonlocal calls
        original(kimg, total)
        calls += 1
        first_tick = calls == 2 and kimg < total
        if calls == 1 or (first_tick and first_nimg):
            return
        snapshot = run.run.outdir / f"network-snapshot-{kimg:06d}.pkl"
        if dist.get_rank() == 0 and snapshot.exists():
            run.snapshot_written(snapshot, 0 if first_tick else progress.step)
        run.paused(progress.step)

    dist.update_progress = update_progress
    if first_nimg:
        _spare_snapshots(lambda: progress.seen == batch_size and first_nimg + batch_size < total_nimg)


def _spare_snapshots(meanwhile: Callable[[], bool]) -> None:
    """What the loop writes as a snapshot goes nowhere as long as this holds."""

    def open_other(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        spared = "w" in mode and Path(file).name.startswith("network-snapshot-") and meanwhile()
        return open(os.devnull if spared else file, mode, *rest, **options)  # noqa: PTH123  # it stands in for this one

    loop: Any = training.training_loop
    loop.open = open_other  # found before Python's own
