"""A folder that one run has to itself."""

from __future__ import annotations

from pathlib import Path

import filelock

from ddo_plugin.base.errors import UserError

LOCK = ".lock"


def hold(out: Path) -> filelock.AcquireReturnProxy:
    """Make the folder and hold it for this process alone, as long as the `with` block lasts."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(out / LOCK).acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"another run is working in {out}; wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written to ({error.strerror}); choose another folder") from None


def is_held(out: Path) -> bool:
    """Whether a process works in the folder now."""
    if not (out / LOCK).exists():
        return False
    try:
        with filelock.FileLock(out / LOCK).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True
