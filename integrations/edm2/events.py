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
from ddo_plugin import Finetuning


class Progress:
    """Where the loop is, in images, and which snapshots it must therefore have written."""

    def __init__(self, run: Finetuning, interval: int | None, batch_size: int):
        self.run, self.interval, self.batch_size = run, interval, batch_size
        self.nimg = 0
        self._told: int | None = None  # the images of the last snapshot that needs no telling any more

    @property
    def step(self) -> int:
        return self.nimg // self.batch_size

    def resume(self, nimg: int) -> None:
        """The snapshot of this place was told of before its state was written."""
        self.nimg = self._told = nimg

    def tell(self) -> None:
        """The loop has done here what it does between two steps."""
        if not self.interval or self.nimg % self.interval or self.nimg == self._told or dist.get_rank() != 0:
            return
        self._told = self.nimg
        for snapshot in sorted(self.run.run.outdir.glob(f"network-snapshot-{self.nimg // 1000:07d}*.pkl")):
            self.run.snapshot_written(snapshot, self.step)

    def pause(self) -> None:
        """A run that is interrupted from here on can go on from here."""
        self.tell()
        self.run.paused(self.step)


_progress: Progress | None = None


def active() -> Progress:
    """The progress of this process's run."""
    assert _progress is not None, "configure comes first"
    return _progress


def watch(run: Finetuning, interval: int | None, batch_size: int) -> None:
    """Tell of snapshots, write states whole or not at all, and set damaged ones aside before the loop looks for one."""
    global _progress
    progress = _progress = Progress(run, interval, batch_size)
    states.write_atomically()
    module: Any = training.training_loop
    original = module.training_loop

    @functools.wraps(original)
    def training_loop(**settings: Any) -> None:
        states.set_aside_damaged(run.run.outdir)
        original(**settings)
        progress.pause()

    module.training_loop = training_loop
