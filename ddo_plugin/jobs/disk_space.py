"""Free space on the disk: a step starts only if there is room for what the last step of its kind wrote."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import size_of
from ddo_plugin.jobs.executor import StepFailedError
from ddo_plugin.jobs.journal import Journal

RESERVE = 1 << 20  # bytes that stay free for the journal, logs and evaluations
WORDS = ("No space left on device", "Errno 28", "Disk quota exceeded")
MIB = 1 << 20


class OutOfSpaceError(UserError):
    """The disk is full, or the next step would fill it."""


class DiskSpace:
    """The free space in a run's folder, which the steps that run at the same time share."""

    def __init__(self, root: Path, journal: Journal):
        self._root, self._journal = root, journal
        self._reserved: dict[Path, int] = {}  # output of a running step -> the size that it is expected to reach
        self._lock = threading.Lock()

    @contextmanager
    def reserved(self, out: Path, kind: str) -> Iterator[None]:
        """Reserve space for a step's output during the `with` block, or refuse to start the step."""
        need = max(self._last_size(kind) - size_of(out), 0)
        with self._lock:
            others = sum(max(size - size_of(path), 0) for path, size in self._reserved.items())
            free = shutil.disk_usage(self._root).free
            if free < need + others + RESERVE:
                raise OutOfSpaceError(
                    f"{self._root}: {free / MIB:,.1f} MiB are free, but the next step needs "
                    f"{(need + others + RESERVE) / MIB:,.1f} MiB ({out.name}); free some space and run the same "
                    "command again to resume"
                )
            self._reserved[out] = need + size_of(out)
        try:
            yield
        finally:
            with self._lock:
                del self._reserved[out]

    def explain(self, failure: StepFailedError) -> None:
        """Raise OutOfSpaceError if a step failed because the disk is full. Such a failure does not count as a try."""
        free = shutil.disk_usage(self._root).free
        if free < RESERVE or any(word in failure.tail for word in WORDS):
            raise OutOfSpaceError(
                f"{self._root}: a step failed because the disk is full ({free / MIB:,.1f} MiB are free); free some "
                f"space and run the same command again to resume; log: {failure.log}"
            )

    def _last_size(self, kind: str) -> int:
        """Return the bytes that the last finished step of this kind wrote; 0 if there is none."""
        sizes = [fact["measured"]["bytes"] for fact in self._journal.find("finished", kind=kind)]
        return int(sizes[-1]) if sizes else 0
