"""A user's folder: which upstream it holds, and the state of the files that DDO's patch changes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.patching import format as patch_format
from ddo_plugin.checkouts.patching.format import FilePatch
from ddo_plugin.checkouts.patching.transaction import is_interrupted, repair
from ddo_plugin.checkouts.patching.tree import PatchedFile, inspect_tree
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Upstream


@dataclass(frozen=True)
class Checkout:
    """A user's copy of an upstream's repository."""

    root: Path  # absolute, symbolic links followed
    upstream: Upstream

    def files(self) -> list[PatchedFile]:
        """Return the state of every file that the patch changes; nothing is written.

        After an interrupted `ddo apply`, some files may be patched and others not. Each of them is whole.
        """
        return inspect_tree(self.root, self._patches())

    def is_interrupted(self) -> bool:
        """Return whether a killed `ddo apply` or `ddo revert` left work to finish."""
        return is_interrupted(self.root, self._targets())

    def repair(self) -> None:
        """Finish what a killed `ddo apply` or `ddo revert` began. Only these two commands call this."""
        try:
            repair(self.root, self._targets())
        except OSError as error:
            raise UserError(f"cannot finish the interrupted `ddo apply` in {self.root}: {error}") from None

    def _patches(self) -> tuple[FilePatch, ...]:
        if self.upstream.patch is None or self.upstream.digests is None:
            raise UserError(f"{self.root}: the integration of {self.upstream.title} has no patch to insert or remove")
        return patch_format.load(self.upstream.patch, self.upstream.digests)

    def _targets(self) -> list[Path]:
        return [(self.root / patch.path).resolve() for patch in self._patches()]


def open_checkout(folder: Path) -> Checkout:
    """Return the checkout in a folder; refuse a folder that holds no known upstream."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; pass the folder of an upstream's checkout")
    root = folder.resolve()
    known = [upstream for upstream in plugins.upstreams() if upstream.landmarks]
    return Checkout(root, recognise(root, known))


def recognise(root: Path, known: Iterable[Upstream]) -> Upstream:
    """Return the upstream whose landmarks all match. Prefer more landmarks, then the plugin registered last."""
    missing = {upstream: _missing(root, upstream.landmarks) for upstream in known}
    complete = [upstream for upstream, gaps in missing.items() if not gaps]
    if complete:
        return max(enumerate(complete), key=lambda numbered: (len(numbered[1].landmarks), numbered[0]))[1]
    raise UserError(f"{root} is not a checkout of a supported upstream ({_nearest(missing)})")


def git_commit(root: Path) -> str:
    """Describe the commit that `root` is at. A folder inside another git repository has none of its own."""
    if _git(root, "rev-parse", "--show-prefix") != "":
        return "unknown: not a git checkout"
    changed = len((_git(root, "status", "--porcelain", "--untracked-files=no") or "").splitlines())
    dirty = f", {changed} changed file{'s' * (changed > 1)}" if changed else ""
    return f"{_git(root, 'log', '-1', '--format=%h of %cs: %s') or 'none yet'}{dirty}"


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]  # `git status` would rewrite its index
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError:  # git is not installed
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _missing(root: Path, landmarks: Mapping[str, str]) -> list[str]:
    return [path for path, pattern in landmarks.items() if not _matches(root / path, pattern)]


def _matches(path: Path, pattern: str) -> bool:
    try:
        return re.search(pattern, path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE) is not None
    except OSError:
        return False


def _nearest(missing: Mapping[Upstream, list[str]]) -> str:
    if not missing:
        return "none is installed; see `ddo plugins`"
    upstream, gaps = min(missing.items(), key=lambda item: len(item[1]) / len(item[0].landmarks))
    if len(gaps) == len(upstream.landmarks):
        return f"supported: {', '.join(known.title for known in missing)}"
    return f"closest to {upstream.title}, but {', '.join(gaps)} is missing or different"


def make_importable(root: Path) -> None:
    """Put a checkout first on the import path, as for its own scripts, and write no `__pycache__` into it."""
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
