"""`ddo demo` with settings so small that a test can run it: `python tiny.py OUT [--forks]`.

With --forks, a step does not start its own interpreter: tests/processes.py forks one that has imported torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ddo_integrations.demo import play
from ddo_integrations.demo.settings import QUICK, Settings
from ddo_plugin.base.commands import Command
from ddo_plugin.base.progress import PROGRESS_VARIABLE
from ddo_plugin.jobs.executor import StepFailedError
from ddo_plugin.jobs.slots import Slot
from tests.processes import run_python

SHORT = {
    "diffusion": replace(
        QUICK.families["diffusion"],
        pretraining={"steps": 300, "lr": 2e-3, "dump": 20},
        training={"steps": 40, "lr": 1e-4, "dump": 10},
        rounds=2,
        refset_count=100,
        evaluation_seeds=(1, 2),
        evaluation_count=100,
    ),
    "tokens": replace(
        QUICK.families["tokens"],
        pretraining={"steps": 100, "lr": 3e-3, "dropout": 0.25, "dump": 20},
        training={"steps": 40, "lr": 1e-3, "dump": 10},
        refset_count=100,
        evaluation_seeds=(1, 2),
        evaluation_count=100,
    ),
}
TINY = Settings(SHORT, {"base-steps": 20, "steps": 10})


class Forks:
    """An executor that runs one step at a time, each as a fork."""

    def __init__(self, slots: int, threads_per_command: int) -> None:
        self.stopping = threading.Event()

    @contextlib.contextmanager
    def slot(self) -> Iterator[Slot]:
        yield Slot()

    def run(self, slot: Slot, command: Command, log: Path, progress: Path, name: str = "") -> float:
        start = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        done = run_python(command.argv[1:], env={**os.environ, PROGRESS_VARIABLE: str(progress), **command.env})
        log.write_text(done.stdout + done.stderr)
        progress.unlink(missing_ok=True)
        if done.returncode:
            raise StepFailedError(command, done.returncode, log, name)
        return time.monotonic() - start

    def stop(self) -> None:
        self.stopping.set()

    def cancel_leftovers(self) -> None:
        pass


if __name__ == "__main__":
    if "--forks" in sys.argv:
        play.LocalExecutor = Forks
    play.run(play.Demo(Path(sys.argv[1]), ("diffusion", "tokens"), TINY))
