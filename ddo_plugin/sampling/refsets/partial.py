"""A reference set in the making: what survives a kill at any moment, and how the next run goes on from it.

Beside the target FOLDER lies `.FOLDER.unfinished`:

    draft.json     the manifest to be, without checksums: a run with another draft does not go on from here
    set/           the arrays at their full size; at the end the manifest; then it becomes FOLDER
    done-*         one file a process: the numbers of the blocks of rows that are safely on the disk
    lock           held while a run is at work
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

import filelock
import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import publish, sync_folder, sync_tree, write_json
from ddo_plugin.sampling.refsets import format as refset

SYNC_S = 1.0  # the most seconds of finished work that a kill may cost, or a block if that takes longer
_NOT_RESERVABLE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # of file systems that cannot; no lack of room
_NUMBER = struct.Struct("<q")


class Unfinished:
    """The work on one reference set, cut into blocks of `block` rows."""

    def __init__(self, path: Path, draft: Mapping[str, Any], labels: np.ndarray | None, block: int):
        self.path, self.draft, self.labels, self.block = path.absolute(), dict(draft), labels, block
        self.folder = self.path.with_name(f".{self.path.name}.unfinished")
        self.samples = f"{draft['kind']}.npy"
        self._lock = filelock.FileLock(self.folder / "lock", blocking=False)

    @property
    def blocks(self) -> int:
        return -(-int(self.draft["count"]) // self.block)

    def made_already(self) -> bool:
        """Whether the set is there; another thing in its place is refused."""
        if not os.path.lexists(self.path):
            return False
        self._refuse_other(self.path, self.path, _without_checksums(refset.open_refset(self.path).manifest))
        self.discard()  # what a kill left between the last two steps of `finish`
        return True

    def begin(self) -> None:
        """Find what an earlier run left, or lay out the arrays. For one process; `close` ends it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise UserError(f"{self.path}: another process is making this set; wait for it, or end it") from None
        told = self.folder / "draft.json"
        there = json.loads(told.read_text()) if told.exists() else None
        if there and (self.done() or self._readable(there)):
            self._refuse_other(self.folder, self.folder / "set", there)
        else:
            self._lay_out()
            write_json(told, self.draft)

    def _readable(self, draft: Mapping[str, Any]) -> bool:
        """Whether the arrays of a draft are there; a machine that lost its power may have kept less of them."""
        try:
            for name in draft["arrays"]:
                np.load(self.folder / "set" / name, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return False
        return True

    def _lay_out(self) -> None:
        for left in self.folder.iterdir():  # of a run that was killed just here
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != "lock":
                left.unlink()
        folder = self.folder / "set"
        folder.mkdir()
        told = self.draft["arrays"][self.samples]
        dtype, shape = np.dtype(told["dtype"]), tuple(told["shape"])
        if math.prod(shape) * dtype.itemsize > shutil.disk_usage(folder).free:
            self._refuse_for_room("the disk")
        np.lib.format.open_memmap(folder / self.samples, "w+", dtype, shape)
        try:
            _reserve(folder / self.samples)
        except OSError as error:  # a quota, too, which the disk's free space does not tell
            self._refuse_for_room(f"the disk ({error.strerror})")
        if self.labels is not None:
            np.save(folder / refset.LABELS, self.labels)
        sync_tree(folder)  # before the draft says that they are there
        sync_folder(self.folder)

    def _refuse_for_room(self, where: str) -> NoReturn:
        self.discard()
        raise UserError(f"{self.path}: {where} has no room for this set; free some, or lower --count") from None

    def done(self) -> set[int]:
        """The blocks that are safely on the disk."""
        found: set[int] = set()
        for file in self.folder.glob("done-*"):
            data = file.read_bytes()
            whole = len(data) // _NUMBER.size * _NUMBER.size
            found.update(number for (number,) in _NUMBER.iter_unpack(data[:whole]))
        return found

    def writer(self) -> BlockWriter:
        """For one process; several may write different blocks at the same time."""
        name = f"done-{os.getpid()}-{secrets.token_hex(4)}"
        return BlockWriter(self.folder / "set" / self.samples, self.folder / name, self.block)

    def finish(self) -> None:
        """Checksums, manifest, and the folder to its place."""
        missing = self.blocks - len(self.done())
        if missing:
            raise RuntimeError(f"{missing} blocks of {self.path} are not made yet")
        if (self.folder / "set").exists():
            refset.seal(self.folder / "set", self.draft)
            publish(self.folder / "set", self.path)
        self.discard()

    def discard(self) -> None:
        """Remove what is left of the work."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        self._lock.release()

    def _refuse_other(self, place: Path, arrays: Path, told: Mapping[str, Any]) -> None:
        """What lies there must be the same set; the first thing in which it differs is named."""
        remedy = "give the settings it was made with, or another --out, or remove it"
        there, here = _flat(told), _flat(self.draft)
        for name in [*here, *there]:
            if there.get(name) != here.get(name) and not name.endswith(".source"):  # sha256 says which file it is
                raise UserError(
                    f"{place} holds another set: its {name} is {there.get(name)}, not {here.get(name)}; {remedy}"
                )
        if self.labels is not None and not np.array_equal(np.load(arrays / refset.LABELS), self.labels):
            raise UserError(f"{place} holds another set: its samples have other labels; {remedy}")


class BlockWriter:
    """Writes blocks into the array; records a block only when its data are on the disk."""

    def __init__(self, array: Path, record: Path, block: int):
        self._array, self._row_bytes, self._offset = _open_array(array)
        self._record, self._block = record.open("ab"), block
        self._waiting: list[int] = []
        self._synced = -math.inf  # the first block goes to the disk at once: every life gets on by one

    def write(self, number: int, rows: np.ndarray) -> None:
        """Put the rows of a block in their place."""
        self._array.seek(self._offset + number * self._block * self._row_bytes)
        self._array.write(np.ascontiguousarray(rows).tobytes())
        self._waiting.append(number)
        if time.monotonic() - self._synced >= SYNC_S:
            self.sync()

    def sync(self) -> None:
        _to_disk(self._array)
        self._record.write(b"".join(map(_NUMBER.pack, self._waiting)))
        _to_disk(self._record)
        self._waiting.clear()
        self._synced = time.monotonic()

    def close(self) -> None:
        self.sync()
        self._array.close()
        self._record.close()


def _open_array(path: Path) -> tuple[IO[bytes], int, int]:
    """The file of an .npy array for writing, the bytes of a row, and where the first one begins."""
    array = np.load(path, mmap_mode="r")
    assert isinstance(array, np.memmap)
    return path.open("r+b"), array.nbytes // len(array), int(array.offset)


def _reserve(path: Path) -> None:
    """Take the room on the disk now, where the system can: a full disk is then found before hours of sampling."""
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in _NOT_RESERVABLE:
                    raise


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _without_checksums(manifest: Mapping[str, Any]) -> dict[str, Any]:
    arrays = {
        name: {key: value for key, value in told.items() if key != "sha256"}
        for name, told in manifest["arrays"].items()
    }
    return {**manifest, "arrays": arrays}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[str, Any] = {}
    for part, inner in value.items():
        flat |= _flat(inner, f"{name}.{part}".strip("."))
    return flat
