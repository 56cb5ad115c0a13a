"""Replace several files: all of them or none, even if the process is killed meanwhile.

First the new contents are written beside the files. Then a journal records what goes where. Then the new contents are
renamed into place. Before the journal exists, no file has changed. Once it exists, `repair` can finish the work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import filelock

from ddo_plugin.base.environment import cache_folder
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sync_folder, write_json, writing

JOURNAL = ".ddo-journal.json"
_STAGED = ".ddo-new"


def replace_all(root: Path, changes: Mapping[Path, tuple[bytes, bytes]]) -> None:
    """Replace files below `root`, each given with its expected old and its new content. File modes are kept."""
    with _locked(root):
        _finish(root)
        steps = []
        try:
            for path, (old, new) in changes.items():
                _stage(path, new)
                steps.append({"path": str(path.relative_to(root)), "old": _sha256(old), "new": _sha256(new)})
            _refuse_changed(root, steps)
            write_json(root / JOURNAL, {"replace": steps})
        except BaseException:
            for path in changes:
                _staged(path).unlink(missing_ok=True)
            raise
        _finish(root)


def is_interrupted(root: Path, paths: Sequence[Path]) -> bool:
    """Return whether a killed `replace_all` of some of these files left a journal or staged content behind."""
    return (root / JOURNAL).exists() or bool(_leftovers(root, paths))


def repair(root: Path, paths: Sequence[Path]) -> None:
    """Finish what a killed `replace_all` of some of these files began, and remove what it left behind."""
    if is_interrupted(root, paths):
        with _locked(root):
            _finish(root)
            for leftover in _leftovers(root, paths):
                leftover.unlink(missing_ok=True)


def _finish(root: Path) -> None:
    try:
        steps = json.loads((root / JOURNAL).read_text())["replace"]
    except FileNotFoundError:
        return
    for step in steps:
        path = root / step["path"]
        staged = _staged(path)
        if staged.exists() and _holds(path, step["old"]) and _holds(staged, step["new"]):
            staged.replace(path)
            sync_folder(path.parent)
        staged.unlink(missing_ok=True)  # still there only if the user has edited the file since: keep the edit
    (root / JOURNAL).unlink()
    sync_folder(root)


def _leftovers(root: Path, paths: Sequence[Path]) -> list[Path]:
    return [*root.glob(f".{JOURNAL}.*.tmp"), *(_staged(path) for path in paths if _staged(path).exists())]


def _stage(path: Path, data: bytes) -> None:
    staged = _staged(path)
    staged.unlink(missing_ok=True)
    with writing(str(path)), staged.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    staged.chmod(stat.S_IMODE(path.stat().st_mode))


def _staged(path: Path) -> Path:
    return path.with_name(f".{path.name}{_STAGED}")


def _refuse_changed(root: Path, steps: list[dict[str, str]]) -> None:
    for step in steps:
        if not _holds(root / step["path"], step["old"]):
            raise UserError(f"{step['path']} was changed by another process just now; nothing was changed, try again")


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path.read_bytes()) == sha256


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / f"{_sha256(os.fsencode(root))[:16]}.lock"):
        yield
