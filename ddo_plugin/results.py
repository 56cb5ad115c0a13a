"""The JSON that a measurement leaves behind: its place is tried before the work is done."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddo_plugin.errors import UserError
from ddo_plugin.files import write_json

_BLOCK = 4096  # bytes that a full disk has no room for


def check_place(out: Path) -> None:
    """Refuse a file that cannot be written; nothing is left behind, not even its folder."""
    with _in_one_line(out):
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = next(parent for parent in out.absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_BLOCK))


def write_result(out: Path, value: Any) -> None:
    """Write it, whole or not at all."""
    with _in_one_line(out):
        write_json(out, value)


@contextlib.contextmanager
def _in_one_line(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--out={out} cannot be written ({reason}); make room or choose another place") from None
