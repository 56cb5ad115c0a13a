"""Writes files and folders that are either complete or absent: temporary name, fsync, rename.

A writer locks what it writes under a temporary name until it has renamed it. So the next process that writes to the
same folder can tell what a killed process left there, and removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
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
_LEFTOVER = re.compile(r"\.(.{1,50})\.[0-9a-f]{16}\.(tmp|old)", re.DOTALL)  # see _beside
_swept: set[Path] = set()
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # of a file system that has none


@contextlib.contextmanager
def atomic_write(path: Path, *, replace: bool = True, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at `path` if the block ends without an exception, and not at all otherwise.

    Without `replace`, whatever exists at `path` at the beginning or at the end is refused. Without `durable`, the file
    may be empty after a failure of the power, but is written faster.
    """
    if not replace:
        refuse_to_replace(path)
    with writing(str(path), ours=path), _folder_of(path), contextlib.ExitStack() as locks:
        temporary, opened = _open_locked(path, locks)
        try:
            with opened as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path) if replace else _create(temporary, path)
            if durable:
                _sync_new(path, replace)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if (origin := _origin(error)) is not error:
                raise origin from None
            raise


@contextlib.contextmanager
def writing(what: str, *, ours: Path | None = None) -> Iterator[None]:
    """Report in one line that the disk is full or the place cannot be written to.

    With `ours`, errors that name a path outside of its folder are left alone.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS or (ours is not None and not _concerns(error, ours)):
            raise
        raise UserError(
            f"{what} cannot be written ({error.strerror or error}); check the permissions and the free disk space, "
            "or choose another place"
        ) from None


def refuse_to_replace(path: Path) -> None:
    """Refuse to overwrite an existing path."""
    sweep(path.parent)
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
    with writing(str(path), ours=path), _folder_of(path), contextlib.ExitStack() as locks:
        temporary = _mkdir_locked(path, locks)
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
    _sync_new(path, replace)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Create a folder for drafts of `path` and its neighbours, and remove it with whatever is left in it.

    The drafts lie on the file system of `path`, so that `publish_file` can move them there.
    """
    with writing(str(path), ours=path), _folder_of(path), contextlib.ExitStack() as locks:
        temporary = _mkdir_locked(path, locks)
        try:
            yield temporary
        except BaseException as error:
            if (origin := _origin(error)) is not error:
                raise origin from None
            raise
        finally:
            _remove(temporary)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, where the file system has such locks."""
    if os.name != "posix":
        yield
        return
    import fcntl

    number = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def publish_file(draft: Path, path: Path) -> None:
    """Move a finished file to `path`, durably. Whatever exists there is refused."""
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    _create(draft, path)
    _sync_new(path, replace=False)


def append(path: Path, text: str, *, durable: bool = True) -> None:
    """Append to a file, and take back what was written if the disk fails."""
    whole = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.truncate(path, whole)
        raise


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder under a temporary name; once for each folder and process."""
    folder = folder.absolute()
    if folder in _swept or os.name != "posix":
        return
    _swept.add(folder)
    with contextlib.suppress(OSError):
        names = os.listdir(folder)  # noqa: PTH208, paths of 50,000 images would take long
        whole = {name[:_SHORT] for name in names}
        for name in names:
            match = _LEFTOVER.fullmatch(name)
            if match and (match[2] == "tmp" or match[1] in whole):  # an old folder is kept until the new one is there
                _remove_if_left(folder / name)


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


def _beside(path: Path, suffix: str = "tmp") -> Path:
    """Return a new name in the same folder. Files created there get the permissions of the umask."""
    sweep(path.parent)
    shortened = path.name[:_SHORT]  # a name has at most 255 bytes
    return path.with_name(f".{shortened}.{secrets.token_hex(8)}.{suffix}")


def _open_locked(path: Path, locks: contextlib.ExitStack) -> tuple[Path, IO[bytes]]:
    """Create a temporary file beside `path` and hold a lock on it until `locks` are closed."""
    while True:
        temporary = _beside(path)
        file = temporary.open("xb")
        if os.name != "posix" or _lock(os.dup(file.fileno()), locks):
            return temporary, file
        file.close()


def _mkdir_locked(path: Path, locks: contextlib.ExitStack) -> Path:
    """Create a temporary folder beside `path` and hold a lock on it until `locks` are closed."""
    while True:
        temporary = _beside(path)
        temporary.mkdir()
        with contextlib.suppress(FileNotFoundError):
            if os.name != "posix" or _lock(os.open(temporary, os.O_RDONLY), locks):
                return temporary


def _lock(number: int, locks: contextlib.ExitStack) -> bool:
    """Lock what was just created. Return False if another process took it for a leftover before this lock."""
    import fcntl

    locks.callback(os.close, number)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no such locks, so nobody takes anything there for a leftover
        return True
    return os.fstat(number).st_nlink > 0


def _remove_if_left(path: Path) -> None:
    """Remove a temporary file or folder unless its writer still holds the lock, or nothing can be locked there."""
    import fcntl

    with contextlib.suppress(OSError):
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        finally:
            os.close(number)


def _sync_new(path: Path, replace: bool) -> None:
    """Make a new name durable. If that fails, remove what replaced nothing, so that the command can be repeated."""
    try:
        sync_folder(path.parent)
    except OSError:
        if not replace:
            _remove(path)
        raise


def _concerns(error: OSError, path: Path) -> bool:
    """Return whether an error is about this path, its folder or a file in this folder; many name no file."""
    if error.filename is None:
        return True
    try:
        return Path(os.fsdecode(error.filename)).absolute().is_relative_to(path.absolute().parent) or (
            path.absolute().is_relative_to(Path(os.fsdecode(error.filename)).absolute())
        )
    except TypeError:  # a file descriptor
        return True


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
    aside = _beside(path, "old")
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
