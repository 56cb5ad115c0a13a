"""Run a training script and write what its steps cost: `steps.py OUT TIMED COUNTED MINE THEIRS SCRIPT …`.

A step begins where the optimizer has updated the weights, and ends at its next update. Without changes to the script,
OUT receives the CPU seconds of the first TIMED steps, and the calls of functions by Python in the next COUNTED steps.

A second process with another SCRIPT takes turns with this one, so that other programs slow down both. MINE and THEIRS
are named pipes: a byte in MINE lets this process run a step. The pristine script begins: there is a byte in its pipe.
"""

import json
import linecache
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from torch.optim.optimizer import register_optimizer_step_post_hook

from ddo_plugin.checkouts.compat.__main__ import main

STACKS = {traceback.__file__, linecache.__file__}  # torch writes down the stack, and `ddo apply` adds a frame to it


class Steps:
    """Notes what each step costs."""

    def __init__(self, out: Path, timed: int, counted: int, pipes: Sequence[str]):
        self.out, self.timed, self.counted = out, timed, counted
        self.seconds: list[float] = []
        self.calls: list[int] = []
        self.begin, self.count = 0.0, 0
        self.mine, self.theirs = (os.open(pipe, os.O_RDWR) for pipe in pipes)

    def end(self, *_: object) -> None:
        """Take note of a step; its own cost does not count."""
        sys.setprofile(None)
        if self.calls or len(self.seconds) > self.timed:
            self.calls.append(self.count)
        else:
            self.seconds.append(time.process_time() - self.begin)
            self.take_turns()
        if len(self.calls) == self.counted + 1:
            found = {"seconds": self.seconds[1:], "calls": self.calls[1:]}  # the first ones began earlier
            self.out.write_text(json.dumps(found))
            return
        self.count, self.begin = 0, time.process_time()
        if len(self.seconds) > self.timed:
            sys.setprofile(self.note)

    def take_turns(self) -> None:
        """Let the other process run a step, and wait until it has. Both use the same core."""
        if len(self.seconds) == 1:
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        if len(self.seconds) > 1:
            os.write(self.theirs, b".")
        if len(self.seconds) <= self.timed:
            os.read(self.mine, 1)

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """Count the call of a function that is written in Python or C."""
        if frame.f_code.co_filename not in STACKS:
            self.count += event in ("call", "c_call")


if __name__ == "__main__":
    out, timed, counted, mine, theirs, *command = sys.argv[1:]
    register_optimizer_step_post_hook(Steps(Path(out), int(timed), int(counted), [mine, theirs]).end)
    main(command)
