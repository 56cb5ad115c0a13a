"""Events of EDM's native loop, told by the function that it calls on every rank after each tick."""

from __future__ import annotations

import functools

from torch_utils import distributed as dist

from ddo_plugin.finetuning import Finetuning


def watch(run: Finetuning, batch_size: int) -> None:
    """Report every tick and snapshot. The loop calls `update_progress` after it has written, and once as it starts."""
    original = dist.update_progress
    started = False

    @functools.wraps(original)
    def update_progress(kimg: int, total: int) -> None:
        nonlocal started
        original(kimg, total)
        if started and dist.get_rank() == 0:
            step = kimg * 1000 // batch_size
            run.paused(step)
            snapshot = run.run.outdir / f"network-snapshot-{kimg:06d}.pkl"
            if snapshot.exists():
                run.snapshot_written(snapshot, step)
        started = True

    dist.update_progress = update_progress
