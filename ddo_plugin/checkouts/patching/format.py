"""A patch on disk: a zero-context diff that only inserts, and the digests of the lines around each insertion."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.patching.text import digest

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

NEIGHBOURS = 2  # lines on each side of an insertion that must match the recorded ones
START, END = "start of file", "end of file"  # recorded where a neighbour would lie outside the file

_FILE = re.compile(r"diff --git a/(?P<old>.+) b/(?P<new>.+)")
_INDEX = re.compile(r"index (?P<old>[0-9a-f]{40})\.\.(?P<new>[0-9a-f]{40})(?: [0-7]{6})?")
_HUNK = re.compile(r"@@ -(?P<after>\d+),0 \+(?P<first>\d+)(?:,(?P<count>\d+))? @@")


@dataclass(frozen=True)
class Hunk:
    """Lines that are inserted after line `after` of the file that the patch was made for."""

    after: int
    lines: tuple[bytes, ...]
    before_digests: tuple[str, ...] = ()
    after_digests: tuple[str, ...] = ()
    place: str | None = None  # the function and block that the lines are in; None if the file is not Python


@dataclass(frozen=True)
class FilePatch:
    """The insertions into one file."""

    path: str  # relative to the checkout, with slashes
    old_blob: str
    new_blob: str
    hunks: tuple[Hunk, ...]


@dataclass
class _Draft:
    path: str
    blobs: tuple[str, str] | None = None
    header: int = 0  # how many of the two lines that name the file have been read
    hunks: list[tuple[int, int, list[bytes]]] = field(default_factory=list)  # after, how many lines, lines


def load(patch: Traversable, digests: Traversable) -> tuple[FilePatch, ...]:
    """Read a patch and the digests beside it."""
    try:
        return parse(patch.read_bytes().replace(b"\r\n", b"\n"), json.loads(digests.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"the patch {patch.name} is damaged: {error}; reinstall its plugin") from None


def parse(diff: bytes, digests: Mapping[str, Any]) -> tuple[FilePatch, ...]:
    """Parse a diff. Raise ValueError for anything that is not a bare insertion."""
    drafts: list[_Draft] = []
    for number, line in enumerate(diff.removesuffix(b"\n").split(b"\n"), 1):
        if not _take(line, drafts):
            raise ValueError(f"line {number} is not part of an insert-only diff: {line.decode(errors='replace')!r}")
    return tuple(_finish(draft, digests) for draft in _distinct(drafts))


def render(patches: tuple[FilePatch, ...]) -> tuple[bytes, dict[str, Any]]:
    """Return the diff and the digests as they are written to disk."""
    diff: list[bytes] = []
    digests: dict[str, Any] = {}
    for patch in patches:
        diff.append(f"diff --git a/{patch.path} b/{patch.path}\nindex {patch.old_blob}..{patch.new_blob}\n".encode())
        diff.append(f"--- a/{patch.path}\n+++ b/{patch.path}\n".encode())
        inserted = 0
        for hunk in patch.hunks:
            count = len(hunk.lines)
            counted = f",{count}" if count > 1 else ""
            diff.append(f"@@ -{hunk.after},0 +{hunk.after + inserted + 1}{counted} @@\n".encode())
            diff += [b"+" + line + b"\n" for line in hunk.lines]
            inserted += count
        digests[patch.path] = [_sides(hunk) for hunk in patch.hunks]
    return b"".join(diff), digests


def _sides(hunk: Hunk) -> dict[str, Any]:
    sides: dict[str, Any] = {"before": [*hunk.before_digests], "after": [*hunk.after_digests]}
    return sides if hunk.place is None else {**sides, "place": hunk.place}


def padded_digests(lines: tuple[bytes, ...]) -> list[str]:
    """Return the digests of all lines, padded at both ends so that every line has neighbours."""
    return [START] * NEIGHBOURS + [digest(line) for line in lines] + [END] * NEIGHBOURS


def _take(line: bytes, drafts: list[_Draft]) -> bool:
    draft = drafts[-1] if drafts else None
    if draft and draft.hunks and len(draft.hunks[-1][2]) < draft.hunks[-1][1]:
        draft.hunks[-1][2].append(line[1:])
        return line.startswith(b"+")
    text = line.decode(errors="replace")
    if match := _FILE.fullmatch(text):
        drafts.append(_Draft(match["old"]))
        return match["old"] == match["new"] and _is_inside(match["old"])
    if draft is None:
        return False
    if match := _INDEX.fullmatch(text):
        known, draft.blobs = draft.blobs, (match["old"], match["new"])
        return known is None
    if draft.blobs and draft.header < 2:
        draft.header += 1
        return text == (f"--- a/{draft.path}", f"+++ b/{draft.path}")[draft.header - 1]
    if draft.header == 2 and (match := _HUNK.fullmatch(text)):
        after, first, count = int(match["after"]), int(match["first"]), int(match["count"] or 1)
        inserted = sum(count for _, count, _ in draft.hunks)
        ordered = not draft.hunks or after > draft.hunks[-1][0]
        draft.hunks.append((after, count, []))
        return ordered and count > 0 and first == after + inserted + 1
    return False


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and "\\" not in path and ":" not in path


def _distinct(drafts: list[_Draft]) -> list[_Draft]:
    if not drafts or len({draft.path for draft in drafts}) < len(drafts):
        raise ValueError("it changes no file, or one file twice")
    return drafts


def _finish(draft: _Draft, digests: Mapping[str, Any]) -> FilePatch:
    if not draft.hunks or draft.blobs is None or len(draft.hunks[-1][2]) < draft.hunks[-1][1]:
        raise ValueError(f"what it inserts into {draft.path} is cut off")
    around = digests.get(draft.path, [])
    if len(around) != len(draft.hunks):
        raise ValueError(f"there are digests for {len(around)} of its {len(draft.hunks)} insertions into {draft.path}")
    hunks = []
    for (after, _, lines), sides in zip(draft.hunks, around, strict=True):
        before_digests, after_digests = tuple(sides["before"]), tuple(sides["after"])
        if len(before_digests) != NEIGHBOURS or len(after_digests) != NEIGHBOURS:
            raise ValueError(f"an insertion into {draft.path} lacks digests of its {2 * NEIGHBOURS} neighbours")
        hunks.append(Hunk(after, tuple(lines), before_digests, after_digests, sides.get("place")))
    return FilePatch(draft.path, *draft.blobs, tuple(hunks))
