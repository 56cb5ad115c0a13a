"""Reads files of unknown origin: only regular files, of bounded size, and every damage is reported in one line."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.limits import advice, raised

MOST_BYTES = 64 << 20  # of a file, or of an entry of an archive, that is read as a whole
MOST_ITEMS = 1 << 22  # of a JSON file; the labels of ImageNet have 3.8 million
_GROWN = 1 << 20  # of a file that grows while it is read, such as a journal
REMEDY = "create or download the file again"


@contextlib.contextmanager
def parsing(problem: str, remedy: str = REMEDY) -> Iterator[None]:
    """Report in one line whatever a parser raises.

    The parsers of zips, arrays, images and JSON raise errors of many kinds on damaged files, and which ones depends on
    their versions. The block must hold nothing but the parser, because an error of ours would be reported as well.
    """
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{problem} ({reason}); {remedy}") from None


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a regular file. Refuse other files: a pipe can block, and a device can be endless."""
    most = raised(most)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a regular file; copy its content to a file first")
        data = file.read(min(most, status.st_size + _GROWN) + 1)  # reserves as much memory first
    if len(data) > most:
        raise UserError(f"{path}: larger than {most:,} bytes, the limit for such a file; {advice()}")
    return data


def read_json(path: Path, remedy: str = REMEDY) -> Any:
    """Read a regular file of JSON."""
    with parsing(f"{path}: cannot be read", remedy):
        return parse_json(read_bytes(path))


def parse_json(data: bytes, most: int = MOST_ITEMS) -> Any:
    """Parse JSON of at most so many items: an item can have two bytes in the file and two hundred in memory."""
    if sum(map(data.count, (b"[", b"{", b","))) > (most := raised(most)):
        raise ValueError(f"more than {most:,} items; {advice()}")
    return json.loads(data)
