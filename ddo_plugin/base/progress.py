"""The progress of a command: a bar on a terminal, or a small file if an executor runs the command."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_write, sweep

PROGRESS_VARIABLE = "DDO_PROGRESS"  # the file that the executor reads
PARENT_VARIABLE = "DDO_PARENT"  # the executor's process; the command ends if that process is gone
_INTERVAL_S = 0.2


class Progress:
    """Counts up to `total`. `shown` is true on one rank only, which shows the bar."""

    def __init__(self, description: str, total: int, done: int = 0, *, unit: str = "it", shown: bool = True):
        self.total, self.done = total, done
        file = os.environ.get(PROGRESS_VARIABLE) if shown else None
        self._file = Path(file) if file else None
        if self._file:
            sweep(self._file.parent)  # a command that has nothing left to do writes no progress
        self._written = 0.0
        self._parent_is_gone = _watch_parent()
        hidden = not shown or self._file is not None or None
        self._bar = tqdm(desc=description, total=total, initial=done, unit=unit, disable=hidden)

    def update(self, count: int = 1) -> None:
        """Add to the count, and end the process if its executor is gone."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._file and (now - self._written >= _INTERVAL_S or self.done >= self.total):
            self._written = now
            if self._parent_is_gone():
                sys.exit("the process that started this command is gone; start the same run again to resume from here")
            # only shown; a disk that fails will stop the writing of results
            with contextlib.suppress(OSError, UserError), atomic_write(self._file, durable=False) as file:
                file.write(json.dumps({"done": self.done, "total": self.total}).encode())

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()


@contextlib.contextmanager
def progress(
    description: str, total: int, done: int = 0, *, unit: str = "it", shown: bool = True
) -> Iterator[Progress]:
    """Yield a counter and close it after the `with` block."""
    counter = Progress(description, total, done, unit=unit, shown=shown)
    try:
        yield counter
    finally:
        counter.close()


def read_fraction(file: Path) -> float:
    """Return the share of a command that is done, 0 to 1, from its progress file."""
    try:
        state = json.loads(file.read_text())
        return min(1.0, state["done"] / max(state["total"], 1))
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):  # not there yet, or damaged
        return 0.0


def _watch_parent() -> Callable[[], bool]:
    """Return a function that says whether the executor's process has ended. A launcher may stand in between."""
    variable = os.environ.get(PARENT_VARIABLE)
    if not variable or os.name != "posix":
        return lambda: False
    executor = int(variable)
    if os.getppid() == executor:
        return lambda: os.getppid() != executor  # also true while the dead executor is a zombie
    return lambda: not _exists(executor)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
