"""A lock on a run's folder, so that only one process works in it."""

from __future__ import annotations

from pathlib import Path

import filelock

from ddo_plugin.base.errors import UserError

LOCK = ".lock"


def hold(out: Path) -> filelock.AcquireReturnProxy:
    """Create the folder and lock it for the duration of a `with` block."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(out / LOCK).acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"another run is working in {out}; wait for it, or choose another folder with --out") from None
    except OSError as error:
        raise UserError(f"--out={out}: cannot write to this folder ({error.strerror}); choose another one") from None


def is_held(out: Path) -> bool:
    """Return whether a process works in the folder now."""
    if not (out / LOCK).exists():
        return False
    try:
        with filelock.FileLock(out / LOCK).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True
