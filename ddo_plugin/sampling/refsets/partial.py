"""An unfinished reference set: a run can be killed at any time, and the next run continues from the blocks on disk.

The work is in `.FOLDER.unfinished`, beside the target FOLDER:

    draft.json     the future manifest without checksums; a run with another draft cannot continue this one
    set/           the arrays at their full size and finally the manifest; at the end this folder becomes FOLDER
    done-*         a file per process with the numbers of the blocks of rows that are safely on the disk
    lock           held while a run is working
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import filelock
import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import publish, refuse_to_replace, sync_folder, sync_tree, write_json
from ddo_plugin.base.reading import parsing, read_bytes
from ddo_plugin.sampling.refsets import format as refset

SYNC_S = 1.0  # a kill loses at most so many seconds of finished blocks, or one block if it takes longer
_NOT_RESERVABLE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # the file system cannot reserve space
_NUMBER = struct.Struct("<q")


class Unfinished:
    """The unfinished work on a reference set, in blocks of `block` rows."""

    def __init__(self, path: Path, draft: Mapping[str, Any], labels: np.ndarray | None, block: int):
        self.path, self.labels, self.block = path.absolute(), labels, block
        self.draft = {**draft, "arrays": dict(draft["arrays"])}
        self.folder = self.path.with_name(f".{self.path.name}.unfinished")
        self._lock = filelock.FileLock(self.folder / "lock", blocking=False)

    @property
    def blocks(self) -> int:
        return -(-int(self.draft["count"]) // self.block)

    @property
    def scored(self) -> bool:
        """Return whether the set stores log-probabilities."""
        return refset.LOGP in self.draft["arrays"]

    @property
    def in_blocks(self) -> list[str]:
        """Return the names of the arrays that are written block by block."""
        return [f"{self.draft['kind']}.npy", *([refset.LOGP] if self.scored else [])]

    def made_already(self) -> bool:
        """Return whether the set is complete. Refuse anything else in its place."""
        if not os.path.lexists(self.path):
            return False
        manifest = refset.open_refset(self.path).manifest
        self._adopt(self.path, self.path, _without_checksums(manifest))
        self.discard()  # left by a kill between the last two steps of `finish`
        return True

    def begin(self) -> None:
        """Continue an earlier run or create the arrays. Only one process calls this; `close` ends it.

        A run that finished no block leaves nothing to lose, so its settings do not bind the next one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.folder.is_symlink():  # its target may be another folder, whose files would be removed
            raise UserError(f"{self.folder}: is a link; remove it")
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise UserError(
                f"{self.path}: another process is creating this set; wait until it ends, or stop it"
            ) from None
        refuse_to_replace(self.path)  # another process may have finished the set since `made_already`
        path = self.folder / "draft.json"
        if path.exists() and self.done():
            with parsing(f"{self.folder}: the unfinished set cannot be read", "remove this folder"):
                self._adopt(self.folder, self.folder / "set", json.loads(read_bytes(path)))
        else:
            self._create_arrays()
            write_json(path, self.draft)

    def _create_arrays(self) -> None:
        for left in self.folder.iterdir():  # by a run that was killed at this point
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left.name != "lock":
                left.unlink()
        folder = self.folder / "set"
        folder.mkdir()
        arrays = {folder / name: self.draft["arrays"][name] for name in self.in_blocks}
        size = sum(math.prod(array["shape"]) * np.dtype(array["dtype"]).itemsize for array in arrays.values())
        if size > shutil.disk_usage(folder).free:
            self._refuse_for_room("the disk")
        for path, array in arrays.items():
            np.lib.format.open_memmap(path, "w+", np.dtype(array["dtype"]), tuple(array["shape"]))
        try:
            for path in arrays:
                _reserve(path)
        except OSError as error:  # such as a quota, which the free space of the disk does not show
            self._refuse_for_room(f"the disk ({error.strerror})")
        if self.labels is not None:
            np.save(folder / refset.LABELS, self.labels)
        sync_tree(folder)  # before draft.json exists, which promises the arrays
        sync_folder(self.folder)

    def _refuse_for_room(self, where: str) -> NoReturn:
        self.discard()
        raise UserError(f"{self.path}: {where} has no room for this set; free space or lower --count") from None

    def done(self) -> set[int]:
        """Return the numbers of the blocks that are safely on the disk."""
        blocks: set[int] = set()
        for file in self.folder.glob("done-*"):
            data = file.read_bytes()
            whole = len(data) // _NUMBER.size * _NUMBER.size
            blocks.update(number for (number,) in _NUMBER.iter_unpack(data[:whole]))
        return blocks

    def writer(self) -> BlockWriter:
        """Return a writer for one process. Several processes can write different blocks at the same time."""
        name = f"done-{os.getpid()}-{secrets.token_hex(4)}"
        arrays = [self.folder / "set" / array for array in self.in_blocks]
        return BlockWriter(arrays, self.folder / name, self.block)

    def finish(self) -> None:
        """Write checksums and manifest and move the folder to its place."""
        missing = self.blocks - len(self.done())
        if missing:
            raise RuntimeError(f"{missing} blocks of {self.path} are missing")
        if (self.folder / "set").exists():
            refset.seal(self.folder / "set", self.draft)
            publish(self.folder / "set", self.path, replace=False)
        self.discard()

    def discard(self) -> None:
        """Remove the unfinished work."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        self._lock.release()

    def _adopt(self, place: Path, arrays: Path, draft: Mapping[str, Any]) -> None:
        """Take an existing set as this one; refuse another set.

        Earlier versions stored no log-probabilities. A set that was begun without them stays without them.
        """
        if refset.LOGP not in draft["arrays"]:
            self.draft["arrays"].pop(refset.LOGP, None)
        self._refuse_other(place, arrays, draft)

    def _refuse_other(self, place: Path, arrays: Path, draft: Mapping[str, Any]) -> None:
        """Refuse a set with other settings than this one. The message names the first difference."""
        remedy = "repeat its settings, choose another --out, or remove it"
        existing, wanted = _flat(draft), _flat(self.draft)
        for name in [*wanted, *existing]:
            if existing.get(name) != wanted.get(name) and not name.endswith(".source"):  # sha256 identifies the file
                raise UserError(
                    f"{place} holds another set: its {name} is {existing.get(name)}, not {wanted.get(name)}; {remedy}"
                )
        if self.labels is not None and not np.array_equal(np.load(arrays / refset.LABELS), self.labels):
            raise UserError(f"{place} holds another set: its labels are different; {remedy}")


class BlockWriter:
    """Writes blocks into the arrays and records a block only after all its data are on the disk."""

    def __init__(self, arrays: Sequence[Path], record: Path, block: int):
        self._arrays = [_open_array(array) for array in arrays]
        self._record, self._block = record.open("ab"), block
        self._waiting: list[int] = []
        self._synced = -math.inf  # the first block is synced at once, so that every run makes progress

    def write(self, number: int, *rows: np.ndarray) -> None:
        """Write the rows of a block, for each array, to their place in it."""
        for (file, row_bytes, offset), part in zip(self._arrays, rows, strict=True):
            file.seek(offset + number * self._block * row_bytes)
            file.write(np.ascontiguousarray(part).tobytes())
        self._waiting.append(number)
        if time.monotonic() - self._synced >= SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Wait until the written blocks are on the disk, then record them."""
        for file, _, _ in self._arrays:
            _to_disk(file)
        self._record.write(b"".join(map(_NUMBER.pack, self._waiting)))
        _to_disk(self._record)
        self._waiting.clear()
        self._synced = time.monotonic()

    def close(self) -> None:
        self.sync()
        for file, _, _ in self._arrays:
            file.close()
        self._record.close()


def _open_array(path: Path) -> tuple[IO[bytes], int, int]:
    """Open an .npy array for writing; return the file, the bytes per row and the offset of the first row."""
    array = np.load(path, mmap_mode="r")
    assert isinstance(array, np.memmap)
    return path.open("r+b"), array.nbytes // len(array), int(array.offset)


def _reserve(path: Path) -> None:
    """Reserve space if the system can, so that a full disk is found before hours of sampling."""
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
        name: {key: value for key, value in array.items() if key != "sha256"}
        for name, array in manifest["arrays"].items()
    }
    return {**manifest, "arrays": arrays}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[str, Any] = {}
    for part, inner in value.items():
        flat |= _flat(inner, f"{name}.{part}".strip("."))
    return flat
