"""Reads zips and .npz of unknown origin. A small file cannot take much memory, however its entries are compressed.

An entry that is read as a whole has at most 64 MiB, or four times the size of its archive if that is more. Images and
numbers of honest archives are hardly compressible, so this only concerns archives that were made to fill the memory.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ddo_plugin.base.limits import advice, raised
from ddo_plugin.base.reading import MOST_BYTES, REMEDY, parsing

WHOLE = 4  # times the size of the archive: what one entry may take if it is read as a whole
DEFLATE = 1032  # the highest ratio that deflate can reach
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1  # bit of the flags of an entry


class Zip:
    """A zip that is open for reading. `title` names it in messages, and `remedy` ends them."""

    def __init__(self, path: Path, title: str | None = None, remedy: str = REMEDY):
        self._title, self._remedy = title or str(path), remedy
        with parsing(f"{self._title}: cannot be read", remedy):
            self._size = path.stat().st_size
            self._zip = zipfile.ZipFile(path)

    @property
    def names(self) -> list[str]:
        """Return the names of the files in it."""
        return [name for name in dict.fromkeys(self._zip.namelist()) if not name.endswith("/")]

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """Open an entry. The reader must bound what it reads at a time."""
        with parsing(f"{self._title}: cannot read {name}", self._remedy):
            entry = self._entry(name)
            if entry.compress_type not in METHODS or entry.flag_bits & _ENCRYPTED:
                raise ValueError("it is encrypted, or compressed by another method than deflate")
            if entry.compress_size > self._size or entry.file_size > DEFLATE * entry.compress_size:
                raise ValueError(f"its {entry.file_size:,} bytes are more than the file can hold")
            with self._zip.open(entry) as file:
                yield file

    def read(self, name: str) -> bytes:
        """Return the content of an entry."""
        with self.stream(name) as file:
            return self._read_whole(file, self._entry(name).file_size)

    def array(self, name: str) -> np.ndarray:
        """Return an array of numbers from an .npz."""
        with self.stream(f"{name}.npy") as file:
            shape, is_fortran, dtype = array_header(file)
            data = self._read_whole(file, math.prod(shape) * dtype.itemsize)
            return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def _entry(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._zip.getinfo(name)
        except KeyError:
            raise ValueError("there is no such entry") from None

    def _read_whole(self, file: IO[bytes], size: int) -> bytes:
        if size > (most := raised(max(MOST_BYTES, WHOLE * self._size))):
            raise ValueError(f"it would take {size:,} bytes, and the limit for this file is {most:,}; {advice()}")
        data = read_exactly(file, size)
        if file.read(1):  # the end of an entry is also where zipfile compares the checksum
            raise ValueError(f"it is longer than {size:,} bytes")
        return data


@contextlib.contextmanager
def open_zip(path: Path, title: str | None = None, remedy: str = REMEDY) -> Iterator[Zip]:
    """Open a zip, and close it at the end."""
    with contextlib.closing(Zip(path, title, remedy)) as archive:
        yield archive


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an .npy: the shape, whether the order is Fortran's, and the type, which is one of numbers."""
    if (version := np.lib.format.read_magic(file)) != (1, 0):  # others are for long headers, which numbers do not need
        raise ValueError(f"version {version} of the format is not one of arrays of numbers")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biuf":
        raise ValueError(f"the array holds {dtype}, not numbers")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{shape} is not a shape")
    return shape, is_fortran, dtype


def read_exactly(file: IO[bytes], size: int) -> bytes:
    """Read `size` bytes; refuse a file that has fewer."""
    data = file.read(size)
    if len(data) < size:
        raise ValueError(f"it has {len(data):,} bytes in place of {size:,}")
    return data
