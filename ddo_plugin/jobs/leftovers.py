"""Commands that an earlier run left behind when it was killed, and that still write to its folder."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from ddo_plugin.base.progress import PROGRESS_VARIABLE

WAIT_S = 10.0


def end_leftovers(root: Path) -> int:
    """Kill the commands that earlier runs left in this folder, and return their number. The caller holds its lock.

    A command is recognised by the progress file in its environment, which its children inherit. Only Linux shows the
    environment of a process; on other systems the commands end by themselves, at their next report of progress.
    """
    mark = f"{PROGRESS_VARIABLE}={root}{os.sep}".encode()
    marked = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _has(entry / "environ", mark)]
    leftovers = [process for process in marked if process != os.getpid()]
    for process in leftovers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    end = time.monotonic() + WAIT_S
    while any(_has(Path("/proc") / str(process) / "environ", mark) for process in leftovers) and time.monotonic() < end:
        time.sleep(0.02)
    return len(leftovers)


def _has(environment: Path, mark: bytes) -> bool:
    try:
        return any(variable.startswith(mark) for variable in environment.read_bytes().split(b"\0"))
    except OSError:  # the process belongs to another user, or has ended
        return False
