"""What kind of file this is, from its first bytes."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError

_LEGACY_CHECKPOINT = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6: a pickle of its magic number
_LONGEST_HEADER = 100 << 20  # what the safetensors library accepts


class FileKind(Enum):
    PICKLE = "a pickle"
    CHECKPOINT = "a torch checkpoint (zip)"
    LEGACY_CHECKPOINT = "a torch checkpoint (legacy format)"
    SAFETENSORS = "a safetensors file"
    PAGE = "a web page"
    EMPTY = "an empty file"


def kind_of(path: Path) -> FileKind:
    """A pickle has no signature that holds for every protocol: whatever is nothing else is taken for one."""
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
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length <= min(_LONGEST_HEADER, path.stat().st_size - 8):
        return FileKind.SAFETENSORS
    return FileKind.PICKLE


def safetensors_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: name, dtype and shape of each tensor, and `__metadata__`."""
    try:
        with path.open("rb") as file:
            return dict(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path}: a safetensors file with a damaged header; download or copy it again") from None
