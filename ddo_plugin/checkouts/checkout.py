"""A user's folder: which upstream it is, told by what is in it, and what DDO's patch finds there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.patching import format as patch_format
from ddo_plugin.checkouts.patching.transaction import repair
from ddo_plugin.checkouts.patching.tree import PatchedFile, inspect_tree
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Upstream


@dataclass(frozen=True)
class Checkout:
    """Somebody's copy of an upstream."""

    root: Path  # absolute, symbolic links followed
    upstream: Upstream

    def files(self) -> list[PatchedFile]:
        """The files that the patch is about, after finishing what a killed `ddo apply` or `ddo revert` began."""
        if self.upstream.patch is None or self.upstream.digests is None:
            raise UserError(f"no patch comes with the integration of {self.upstream.title}, so {self.root} stays as is")
        patches = patch_format.load(self.upstream.patch, self.upstream.digests)
        try:
            repair(self.root, [(self.root / patch.path).resolve() for patch in patches])
        except OSError as error:
            raise UserError(f"an interrupted `ddo apply` cannot be finished in {self.root}: {error}") from None
        return inspect_tree(self.root, patches)


def open_checkout(folder: Path) -> Checkout:
    """Recognise a folder; a folder of no known upstream is refused."""
    root = folder.resolve()
    if not root.is_dir():
        raise UserError(f"{folder} is no folder; name the checkout of an upstream")
    known = [one for one in plugins.collect(plugins.manager().hook.ddo_upstreams()) if one.landmarks]
    return Checkout(root, recognise(root, known))


def recognise(root: Path, known: Iterable[Upstream]) -> Upstream:
    """The upstream whose landmarks are all there; of several the one with most, then the one registered last."""
    missing = {upstream: _missing(root, upstream.landmarks) for upstream in known}
    complete = [upstream for upstream, gaps in missing.items() if not gaps]
    if complete:
        return max(enumerate(complete), key=lambda one: (len(one[1].landmarks), one[0]))[1]
    raise UserError(f"{root} is no checkout of an upstream that an installed plugin knows ({_nearest(missing)})")


def git_commit(root: Path) -> str:
    """The commit of a git checkout whose root this is; a copy inside somebody else's repository has none."""
    if _git(root, "rev-parse", "--show-prefix") != "":
        return "unknown: not a git checkout"
    changed = len((_git(root, "status", "--porcelain", "--untracked-files=no") or "").splitlines())
    dirty = f", {changed} changed file{'s' * (changed > 1)}" if changed else ""
    return f"{_git(root, 'log', '-1', '--format=%h of %cs: %s') or 'none yet'}{dirty}"


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
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
        return "there is none: see `ddo plugins`"
    upstream, gaps = min(missing.items(), key=lambda one: len(one[1]) / len(one[0].landmarks))
    if len(gaps) == len(upstream.landmarks):
        return ", ".join(one.title for one in missing)
    return f"most like {upstream.title}, but its {', '.join(gaps)} is absent or something else"


def make_importable(root: Path) -> None:
    """As if a script of the checkout ran; nothing is written into it."""
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
