"""Output about the lines that DDO inserts, shared by several commands."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import click

INTERRUPTED = "a `ddo apply` or `ddo revert` was interrupted; run either of them to finish it"


def show(root: Path, changes: Mapping[Path, tuple[bytes, bytes]]) -> None:
    """Print the old and new content of files below `root` as a unified diff."""
    for path, (old, new) in changes.items():
        name = path.relative_to(root).as_posix()
        for line in difflib.unified_diff(_lines(old), _lines(new), f"a/{name}", f"b/{name}", lineterm=""):
            click.echo(line)


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", errors="replace").replace("\r\n", "\n").removesuffix("\n").split("\n")
