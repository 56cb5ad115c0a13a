"""The JSON file that a measurement writes. Its place is tried before the work starts."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

from ddo_plugin.base.files import write_json, writing

_BLOCK = 4096  # bytes; a full disk has no room for them


def check_place(out: Path, option: str = "--out") -> None:
    """Refuse a file that cannot be written. Leave nothing behind, not even its folder."""
    with writing(f"{option}={out}"):
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = next(parent for parent in out.absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_BLOCK))


def write_result(out: Path, value: Any) -> None:
    """Write a value as JSON, completely or not at all."""
    with writing(f"--out={out}"):
        write_json(out, value)
