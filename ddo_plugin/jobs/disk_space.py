"""Room on the disk: a step starts only if what the last one of its kind took is free."""

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
    """The disk is full, or would be."""


class Space:
    """Watches the room in a run's folder. Steps that run at once share it."""

    def __init__(self, root: Path, journal: Journal):
        self._root, self._journal = root, journal
        self._promised: dict[Path, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def reserved(self, out: Path, kind: str) -> Iterator[None]:
        """Refuse to start a step that the disk has no room for."""
        need = max(self._last(kind) - size_of(out), 0)
        with self._lock:
            others = sum(max(size - size_of(path), 0) for path, size in self._promised.items())
            free = shutil.disk_usage(self._root).free
            if free < need + others + RESERVE:
                raise OutOfSpaceError(
                    f"{self._root}: {free / MIB:,.1f} MiB are free, but the next step needs "
                    f"{(need + others + RESERVE) / MIB:,.1f} ({out.name}); free some room, and the same command goes on"
                )
            self._promised[out] = need + size_of(out)
        try:
            yield
        finally:
            with self._lock:
                del self._promised[out]

    def explain(self, failure: StepFailedError) -> None:
        """Raise OutOfSpaceError if that is why a command failed: no fault of its own, and no reason to try again."""
        free = shutil.disk_usage(self._root).free
        if free < RESERVE or any(word in failure.tail for word in WORDS):
            raise OutOfSpaceError(
                f"{self._root}: the disk is full ({free / MIB:,.1f} MiB are free), so a step failed; free some room, "
                f"and the same command goes on; log: {failure.log}"
            )

    def _last(self, kind: str) -> int:
        """Bytes that the last finished step of this kind took; 0 if there was none."""
        sizes = [fact["measured"]["bytes"] for fact in self._journal.find("finished", kind=kind)]
        return int(sizes[-1]) if sizes else 0
