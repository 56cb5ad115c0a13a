"""Which kind of file this is, by its first bytes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.reading import parse_json

_LEGACY_CHECKPOINT = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6: a pickle of its magic number
_LONGEST_HEADER = 100 << 20  # the limit of the safetensors library
_MOST_ITEMS = 1 << 20  # of a header; a tensor has seven


class FileKind(Enum):
    """The kinds of files that users pass as networks."""

    PICKLE = "a pickle"
    CHECKPOINT = "a zip, such as a torch checkpoint"
    LEGACY_CHECKPOINT = "a torch checkpoint (legacy format)"
    SAFETENSORS = "a safetensors file"
    PAGE = "a web page"
    POINTER = "a Git LFS pointer"
    EMPTY = "an empty file"


def kind_of(path: Path) -> FileKind:
    """Return the kind of a file. Not every pickle has a signature, so an unknown file counts as a pickle."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return FileKind.EMPTY
    if head.startswith(b"PK\x03\x04"):
        return FileKind.CHECKPOINT
    if head[2:].startswith(_LEGACY_CHECKPOINT):
        return FileKind.LEGACY_CHECKPOINT
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return FileKind.PAGE
    if head.startswith(b"version https://git-lfs"):
        return FileKind.POINTER
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length <= min(_LONGEST_HEADER, path.stat().st_size - 8):
        return FileKind.SAFETENSORS
    return FileKind.PICKLE


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: name, dtype and shape of each tensor, and `__metadata__`."""
    try:
        with path.open("rb") as file:
            return dict(parse_json(file.read(int.from_bytes(file.read(8), "little")), _MOST_ITEMS))
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path}: the header of this safetensors file is damaged; download or copy it again") from None
