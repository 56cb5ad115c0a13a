"""Training states that are damaged: cut short by a kill while torch.save wrote them, or spoilt by the disk."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from ddo_plugin.base.errors import UserError

SUFFIX = ".damaged"
HEAD_BYTES = 4  # a zip file begins with PK; after a power failure the bytes may be zeros


def state_is_whole(file: Path) -> bool:
    """Return whether a file of torch.save is complete, by the checksums in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged table of contents may raise anything
        return False


def state_is_damaged(file: Path, remedy: str) -> bool:
    """Return whether a training state is damaged. Refuse a file that torch.save cannot have written."""
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    except FileNotFoundError:  # another rank has set it aside
        return True
    if not head.startswith(b"PK") and head.strip(b"\0"):
        raise UserError(f"{file}: not a training state, but upstream would resume from it; {remedy}")
    return not state_is_whole(file)


def set_state_aside(file: Path) -> None:
    """Rename a damaged training state, so that no run resumes from it, and print that."""
    file.rename(file.with_name(file.name + SUFFIX))
    print(f"ddo: {file} is damaged, as by a kill while it was written; renamed to …{SUFFIX}")
    sys.stdout.flush()
