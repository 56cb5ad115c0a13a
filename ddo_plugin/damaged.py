"""Files of torch.save that a kill cut short."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

SUFFIX = ".damaged"


def is_damaged(file: Path) -> bool:
    """Whether the file lacks its end: the table of contents comes last."""
    return not zipfile.is_zipfile(file)


def set_aside(file: Path) -> None:
    """Rename it, so that nothing goes on from it, and say so."""
    file.rename(file.with_name(file.name + SUFFIX))
    print(f"ddo: {file} is damaged, as by a kill while it was written; it is set aside as …{SUFFIX}")
    sys.stdout.flush()
