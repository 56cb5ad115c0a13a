"""Where EDM's native loop is, and its events, told by the function that it calls on every rank after each tick."""

from __future__ import annotations

import functools

from torch_utils import distributed as dist

from ddo_plugin.finetuning import Finetuning


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


def watch(run: Finetuning, batch_size: int, first_nimg: int) -> None:
    """Report every tick and snapshot. The loop calls `update_progress` after it has written, and once as it starts."""
    global _progress
    progress = _progress = Progress(batch_size, first_nimg)
    original = dist.update_progress
    started = False

    @functools.wraps(original)
    def update_progress(kimg: int, total: int) -> None:
        nonlocal started
        original(kimg, total)
        if started:
            snapshot = run.run.outdir / f"network-snapshot-{kimg:06d}.pkl"
            if dist.get_rank() == 0 and snapshot.exists():
                run.snapshot_written(snapshot, progress.step)
            run.paused(progress.step)
        started = True

    dist.update_progress = update_progress
