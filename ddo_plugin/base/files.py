"""Writes files and folders that are either complete or absent: temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ddo_plugin.base.errors import UserError

DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
)
_SHORT = 50  # characters of at most 4 bytes
_EXISTS = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # of a file system that has none


@contextlib.contextmanager
def atomic_write(path: Path, *, replace: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at `path` if the block ends without an exception, and not at all otherwise.

    Without `replace`, whatever exists at `path` at the beginning or at the end is refused.
    """
    if not replace:
        refuse_to_replace(path)
    temporary = _beside(path)
    with _folder_of(path):
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path) if replace else _create(temporary, path)
            sync_folder(path.parent)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if (origin := _origin(error)) is not error:
                raise origin from None
            raise


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Report in one line that the disk is full or the place cannot be written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise UserError(
            f"{what} cannot be written ({error.strerror or error}); free disk space or choose another place"
        ) from None


def refuse_to_replace(path: Path) -> None:
    """Refuse to overwrite an existing path."""
    if os.path.lexists(path):
        raise UserError(f"{path} already exists and is not overwritten; choose another place, or remove it")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, completely or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as file:
        # a file name can be other bytes than UTF-8; JSON has the same escapes as Python for them
        file.write(text.encode(errors="backslashreplace"))


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Create a folder that appears at `path` if the block ends without an exception, and not at all otherwise.

    Without `replace`, whatever exists at `path` at the beginning or at the end is refused.
    """
    if not replace:
        refuse_to_replace(path)
    temporary = _beside(path)
    with _folder_of(path):
        temporary.mkdir()
        try:
            yield temporary
            publish(temporary, path, replace=replace)
        except BaseException:
            _remove(temporary)
            raise


def publish(folder: Path, path: Path, *, replace: bool) -> None:
    """Move a finished folder to `path`, durably."""
    sync_tree(folder)
    _replace(path, folder) if replace else _create(folder, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable. Windows cannot do this."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make a folder and everything in it durable."""
    for file in folder.rglob("*"):
        if file.is_dir():
            sync_folder(file)
        elif file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
    sync_folder(folder)


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Return the bytes of a file or of all files in a folder, 0 if it does not exist."""
    try:
        if path.is_dir():
            return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
        return path.lstat().st_size
    except FileNotFoundError:  # also if a file in the folder has disappeared meanwhile
        return 0


def _beside(path: Path) -> Path:
    """Return a new name in the same folder. Files created there get the permissions of the umask."""
    shortened = path.name[:_SHORT]  # a name has at most 255 bytes
    return path.with_name(f".{shortened}.{secrets.token_hex(8)}.tmp")


@contextlib.contextmanager
def _folder_of(path: Path) -> Iterator[None]:
    """Create the folder of a file or folder, and remove it again if the block fails."""
    created = [folder for folder in path.parents if not os.path.lexists(folder)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in created:
            with contextlib.suppress(OSError):  # another process may have put a file into it
                folder.rmdir()
        raise


def _origin(error: BaseException) -> BaseException:
    """Return why a write failed. If it fails or is interrupted within torch.save, torch raises an error of its own."""
    origin: BaseException | None = error
    while isinstance(origin, RuntimeError):
        origin = origin.__context__
    return origin if isinstance(origin, (OSError, KeyboardInterrupt, SystemExit)) else error


def _create(temporary: Path, path: Path) -> None:
    """Move a file or folder to `path`. Refuse whatever exists there, also if it appeared just now."""
    refuse_to_replace(path)
    try:
        if temporary.is_dir():
            temporary.rename(path)  # fails on everything but an empty folder, in which nothing can be lost
        else:
            _rename_file(temporary, path)
    except OSError as error:
        if error.errno in _EXISTS:
            refuse_to_replace(path)
        raise


def _rename_file(file: Path, path: Path) -> None:
    """Rename a file and fail if `path` exists. A plain rename would replace it, so the file gets a second name."""
    try:
        path.hardlink_to(file)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        path.touch(exist_ok=False)
        file.replace(path)
    else:
        file.unlink()


def _replace(path: Path, folder: Path) -> None:
    """Move `folder` to `path`. A folder cannot be renamed over another, so the old one is moved aside first."""
    if not os.path.lexists(path):
        folder.replace(path)
        return
    aside = _beside(path)
    path.replace(aside)
    try:
        folder.replace(path)
    except BaseException:
        aside.replace(path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
