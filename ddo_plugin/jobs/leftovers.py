"""Commands of an earlier run that was killed: still writing where this one is about to."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from ddo_plugin.base.progress import PROGRESS_VARIABLE

WAIT_S = 10.0


def end_orphans(root: Path) -> int:
    """Kill what still runs of earlier runs in this folder (whose lock the caller holds); tells how many there were.

    They are known by the progress file that their executor gave them, which whatever they start inherits. Where the
    system does not show that (it is Linux that does), they are left to notice by themselves.
    """
    mark = f"{PROGRESS_VARIABLE}={root}{os.sep}".encode()
    found = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _has(entry / "environ", mark)]
    orphans = [process for process in found if process != os.getpid()]
    for process in orphans:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    end = time.monotonic() + WAIT_S
    while any(_has(Path("/proc") / str(process) / "environ", mark) for process in orphans) and time.monotonic() < end:
        time.sleep(0.02)
    return len(orphans)


def _has(file: Path, mark: bytes) -> bool:
    try:
        return any(variable.startswith(mark) for variable in file.read_bytes().split(b"\0"))
    except OSError:  # somebody else's, or gone
        return False
