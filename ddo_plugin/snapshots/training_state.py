"""Files of torch.save that a kill cut short, or a disk spoilt."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from ddo_plugin.base.errors import UserError

SUFFIX = ".damaged"
HEAD = 4  # bytes: a zip's begin with PK, and where a machine lost its power they may be zeros


def state_is_whole(file: Path) -> bool:
    """Whether all that torch.save wrote is there, by the checksums that it wrote beside."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except Exception:  # where the table of contents is spoilt, anything
        return False


def state_is_damaged(file: Path, remedy: str) -> bool:
    """Whether it is a part of what torch.save writes. What never was is refused: it is somebody's, for another use."""
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD)
    except FileNotFoundError:  # another rank has set it aside
        return True
    if not head.startswith(b"PK") and head.strip(b"\0"):
        raise UserError(f"{file} is no training state of this upstream, which would go on from it; {remedy}")
    return not state_is_whole(file)


def set_state_aside(file: Path) -> None:
    """Rename it, so that nothing goes on from it, and say so."""
    file.rename(file.with_name(file.name + SUFFIX))
    print(f"ddo: {file} is damaged, as by a kill while it was written; it is set aside as …{SUFFIX}")
    sys.stdout.flush()
