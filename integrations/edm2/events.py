"""Events of EDM2's native loop.

The loop does not announce that it has written a snapshot. But it comes back to the loss afterwards, for the next step
or for a training state, and when the loop ends, so does its function.
"""

from __future__ import annotations

import functools
from typing import Any

import training.training_loop
from torch_utils import distributed as dist

from ddo_integrations.edm2 import states
from ddo_plugin import Session


class Progress:
    """The position of the loop, in images, and which snapshots it must have written by then."""

    def __init__(self, session: Session, interval: int | None, batch_size: int):
        self.session, self.interval, self.batch_size = session, interval, batch_size
        self.nimg = 0
        self._reported: int | None = None  # the images of the last snapshot that was reported

    @property
    def step(self) -> int:
        return self.nimg // self.batch_size

    def resume(self, nimg: int) -> None:
        """Continue at a training state. Its snapshot was reported before the state was written."""
        self.nimg = self._reported = nimg

    def report(self) -> None:
        """Report the snapshots that the loop wrote between the last step and the next."""
        if not self.interval or self.nimg % self.interval or self.nimg == self._reported or dist.get_rank() != 0:
            return
        self._reported = self.nimg
        for snapshot in sorted(self.session.outdir.glob(f"network-snapshot-{self.nimg // 1000:07d}*.pkl")):
            self.session.report_snapshot(snapshot, self.step)

    def pause(self) -> None:
        """Report that the run can be interrupted here and resumed."""
        self.report()
        self.session.report_pause(self.step)


def watch(session: Session, interval: int | None, batch_size: int) -> None:
    """Report snapshots, write training states atomically, and set damaged states aside before the loop reads one."""
    progress = session.position = Progress(session, interval, batch_size)
    states.write_atomically()
    module: Any = training.training_loop
    original = module.training_loop

    @functools.wraps(original)
    def training_loop(**settings: Any) -> None:
        states.set_aside_damaged(session.outdir)
        original(**settings)
        progress.pause()

    module.training_loop = training_loop
