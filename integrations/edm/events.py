"""The events of EDM's native loop, seen through the function that the loop calls on every rank after each tick."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import training.training_loop
from torch_utils import distributed as dist

from ddo_plugin import Session


class Progress:
    """The optimizer step of the loop. A resumed run starts at whole kimg, which may lie between two steps."""

    def __init__(self, batch_size: int, first_nimg: int):
        self.batch_size, self.first_step = batch_size, first_nimg // batch_size
        self.seen = 0  # images in this process's run, over all ranks

    @property
    def step(self) -> int:
        return self.first_step + self.seen // self.batch_size


def watch(session: Session, batch_size: int, first_nimg: int, total_nimg: int) -> None:
    """Report every tick and snapshot. The loop calls `update_progress` at its start and after each tick's files.

    The first tick is over after one step, and its snapshot counts as the network that the round began with. A resumed
    run writes no snapshot there: it would replace the snapshot that the run resumed from.
    """
    progress = session.position = Progress(batch_size, first_nimg)
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
        snapshot = session.outdir / f"network-snapshot-{kimg:06d}.pkl"
        if dist.get_rank() == 0 and snapshot.exists():
            session.report_snapshot(snapshot, 0 if first_tick else progress.step)
        session.report_pause(progress.step)

    dist.update_progress = update_progress
    if first_nimg:
        _discard_snapshots(lambda: progress.seen == batch_size and first_nimg + batch_size < total_nimg)


def _discard_snapshots(discarding: Callable[[], bool]) -> None:
    """Write the loop's snapshots to nowhere as long as `discarding` returns True."""

    def open_other(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        discarded = "w" in mode and Path(file).name.startswith("network-snapshot-") and discarding()
        return open(os.devnull if discarded else file, mode, *rest, **options)  # noqa: PTH123  # it replaces `open`

    loop: Any = training.training_loop
    loop.open = open_other  # a module's own name comes before Python's built-in
