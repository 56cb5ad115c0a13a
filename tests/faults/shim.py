"""Let the n-th operation on the disk below a folder fail, in this process: a system error, or a signal.

An audit hook sees what Python opens, renames, links and creates; an exception that it raises aborts the operation.
Writes and fsyncs have no audit event, so `open` returns files that count their writes, and `os.fsync` is replaced.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = {"os.rename": "rename", "os.mkdir": "mkdir", "os.link": "link", "os.truncate": "truncate"}
KILL = "SIGKILL"
FAULTS = ("EIO", "ENOSPC", KILL)
SIGNALS = ("SIGINT", "SIGTERM")
FILLS = ("open", "write", "mkdir", "link")  # operations that need space: on a full disk all later ones fail too


class Shim:
    """Counts the operations below `root` and fails the one with the number `at`, or none."""

    def __init__(self, root: str, fault: str = "", at: int = -1):
        self.root, self.fault, self.at = root.rstrip(os.sep) + os.sep, fault, at
        self.seen: list[tuple[str, str]] = []
        self.process = os.getpid()

    def install(self) -> None:
        """Watch this process until it ends; an audit hook cannot be removed."""
        sys.addaudithook(self._audit)
        opened, synced, cut = io.open, os.fsync, os.posix_fallocate

        def open_(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **settings: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+") or not self._below(file):
                return opened(file, mode, buffering, *args, **settings)
            return self._file(file, mode, buffering, *args, **settings)

        def fsync(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            self.count("fsync", Path(f"/proc/self/fd/{number}").readlink())
            synced(file)

        def allocate(number: int, *args: int) -> None:
            self.count("write", Path(f"/proc/self/fd/{number}").readlink())
            cut(number, *args)

        builtins.open = io.open = open_  # type: ignore[assignment]
        os.fsync, os.posix_fallocate = fsync, allocate

    def count(self, kind: str, path: Any) -> None:
        if os.getpid() != self.process or not self._below(path):
            return
        number = len(self.seen)
        path = os.path.abspath(os.fsdecode(path))  # noqa: PTH100, a Path would open nothing, but is slower
        self.seen.append((kind, path))
        full = self.fault == "ENOSPC" and number > self.at >= 0 and kind in FILLS
        if number != self.at and not full:
            return
        if self.fault.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[self.fault])
            return
        code = getattr(errno, self.fault)
        raise OSError(code, os.strerror(code), *([] if kind in ("write", "fsync") else [path]))  # as the system does

    def _below(self, path: Any) -> bool:
        return (os.path.abspath(os.fsdecode(path)) + os.sep).startswith(self.root)  # noqa: PTH100

    def _audit(self, event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = values
            if not isinstance(path, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.count("open", path)
        elif event in EVENTS and not isinstance(values[0], int):
            self.count(EVENTS[event], values[0] if event in ("os.mkdir", "os.truncate") else values[1])

    def _file(
        self,
        path: Any,
        mode: str,
        buffering: int,
        encoding: Any = None,
        errors: Any = None,
        newline: Any = None,
        **settings: Any,
    ) -> Any:
        raw = _counting(self.count, path)(path, mode.replace("b", "").replace("t", ""), **settings)
        if buffering == 0:
            return raw
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)
        text.mode = mode
        return text


def _counting(count: Callable[[str, Any], None], path: Any) -> type[io.FileIO]:
    class Counting(io.FileIO):
        def write(self, data: Any) -> int:
            count("write", path)  # the name of a temporary file is a number
            return super().write(data)

    return Counting
