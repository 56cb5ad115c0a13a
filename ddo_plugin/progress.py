"""Progress of a command: a bar where a person looks at it, a small file where an executor does."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

PROGRESS_VARIABLE = "DDO_PROGRESS"  # the file that the executor reads
PARENT_VARIABLE = "DDO_PARENT"  # the executor's process; a command whose executor died ends too
_INTERVAL_S = 0.2


class Progress:
    """Counts up to `total`."""

    def __init__(self, description: str, total: int, done: int = 0):
        self.total, self.done = total, done
        file = os.environ.get(PROGRESS_VARIABLE)
        self._file = Path(file) if file else None
        self._written = 0.0
        self._bar = tqdm(desc=description, total=total, initial=done, disable=self._file is not None or None)

    def update(self, count: int = 1) -> None:
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._file and (now - self._written >= _INTERVAL_S or self.done >= self.total):
            self._written = now
            _end_with_parent()
            temporary = self._file.with_name(self._file.name + ".tmp")
            temporary.write_text(json.dumps({"done": self.done, "total": self.total}))
            temporary.replace(self._file)

    def close(self) -> None:
        self._bar.close()


@contextlib.contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Progress]:
    counter = Progress(description, total, done)
    try:
        yield counter
    finally:
        counter.close()


def read_fraction(file: Path) -> float:
    """How much of a command is done, 0 to 1, by its progress file."""
    try:
        state = json.loads(file.read_text())
        return min(1.0, state["done"] / max(state["total"], 1))
    except (FileNotFoundError, json.JSONDecodeError):
        return 0.0


def _end_with_parent() -> None:
    parent = os.environ.get(PARENT_VARIABLE)
    if parent and os.getppid() != int(parent):
        sys.exit("the process that started this command is gone; the same run, started again, goes on from here")
