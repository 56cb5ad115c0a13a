"""Events of EDM2's native loop.

The loop tells nobody when it has written a snapshot. It comes back to the loss afterwards, though: for the next step or
for a training state; and when the loop ends, so does the function.
"""

from __future__ import annotations

import functools
from typing import Any

import training.training_loop
from torch_utils import distributed as dist

from ddo_integrations.edm2 import states
from ddo_plugin.finetuning import Finetuning


class _Watch:
    """Where the loop is, in images, and which snapshot must therefore have been written."""

    def __init__(self, run: Finetuning, interval: int | None, batch_size: int):
        self.run, self.interval, self.batch_size = run, interval, batch_size
        self.nimg = 0
        self.last: int | None = None  # the images of the last snapshot that was told of or is not ours to tell of

    def reached(self, nimg: int) -> None:
        self.nimg = nimg
        if not self.interval or nimg % self.interval or nimg == self.last or dist.get_rank():
            return
        self.last = nimg
        for snapshot in sorted(self.run.run.outdir.glob(f"network-snapshot-{nimg // 1000:07d}*.pkl")):
            self.run.snapshot_written(snapshot, step=nimg // self.batch_size)


_watch: _Watch | None = None


def watch(run: Finetuning, interval: int | None, batch_size: int) -> None:
    """Tell of snapshots, write states whole or not at all, and set damaged ones aside before the loop looks for one."""
    global _watch
    _watch = _Watch(run, interval, batch_size)
    states.write_atomically()
    module: Any = training.training_loop
    original = module.training_loop

    @functools.wraps(original)
    def training_loop(**settings: Any) -> None:
        states.set_aside_damaged(run.run.outdir)
        original(**settings)
        _active().reached(_active().nimg)
        pause(_active().nimg)

    module.training_loop = training_loop


def reached(nimg: int) -> None:
    """The loop has trained on so many images and done what it does there."""
    _active().reached(nimg)


def resumed(nimg: int) -> None:
    """The loop goes on from here; the snapshot of this place was told of before its state was written."""
    _active().nimg = _active().last = nimg


def pause(nimg: int) -> None:
    """A run that is interrupted from here on can go on from here."""
    if dist.get_rank() == 0:
        _active().run.paused(nimg // _active().batch_size)


def _active() -> _Watch:
    assert _watch is not None, "configure comes first"
    return _watch
