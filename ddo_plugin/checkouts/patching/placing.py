"""Where a patch's lines belong in a file, or stand already: decided by content, refused when in doubt."""

from __future__ import annotations

import ast
import enum
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ddo_plugin.checkouts.patching.format import NEIGHBOURS, FilePatch, Hunk, padded_digests
from ddo_plugin.checkouts.patching.text import Text, blob_ids

_ENOUGH = 1000  # ways to read a file; only one that repeats DDO's lines many times over has so many


class State(enum.Enum):
    """What a patch finds in a file."""

    PRISTINE = "pristine"
    SHIFTED = "patchable"  # not the version that the patch was made for, but every line has its one place
    PATCHED = "patched"
    CONFLICTING = "conflicting"


@dataclass(frozen=True)
class Inspection:
    """A file as a patch sees it, and what it would be with and without the inserted lines."""

    state: State
    reason: str = ""  # for a person, where there is something to say
    with_lines: bytes | None = None  # None where they cannot be put in
    without_lines: bytes | None = None  # None where they cannot be told from the rest
    lines_found: bool = False  # some of the inserted lines stand in it


def inspect(patch: FilePatch, data: bytes) -> Inspection:
    """Find out the state of a file with this content."""
    if patch.old_blob in blob_ids(data):
        return _insert(patch, data, [hunk.after for hunk in patch.hunks], State.PRISTINE)
    text = Text.of(data)
    standing = _standing(patch, text)
    if len(standing) == 1:
        return _patched(patch, data, text, standing[0])
    if standing:
        return Inspection(State.CONFLICTING, "DDO's lines stand in it more than once; restore it", lines_found=True)
    places = [_places(hunk, text) for hunk in patch.hunks]
    if there := sum(_standing(FilePatch(patch.path, "", "", (hunk,)), text) != [] for hunk in patch.hunks):
        reason = f"{there} of DDO's {len(patch.hunks)} insertions stand in it and the others do not; restore it"
        return Inspection(State.CONFLICTING, reason, lines_found=True)
    if reason := _doubt(patch, places):
        return Inspection(State.CONFLICTING, reason)
    return _insert(patch, data, [found[0] for found in places], State.SHIFTED)


def _insert(patch: FilePatch, data: bytes, places: list[int], state: State) -> Inspection:
    text = Text.of(data)
    blocks = {place: hunk.lines for place, hunk in zip(places, patch.hunks, strict=True)}
    with_lines = text.insert(blocks).data
    starts = _starts(places, patch.hunks)
    if _standing(patch, Text.of(with_lines)) != [starts] or _without(patch, Text.of(with_lines), starts) != data:
        return Inspection(State.CONFLICTING, "lines like DDO's stand in it already; restore it", lines_found=True)
    if reason := _python_doubt(patch, with_lines, starts):
        return Inspection(State.CONFLICTING, reason)
    return Inspection(state, with_lines=with_lines, without_lines=data)


def _patched(patch: FilePatch, data: bytes, text: Text, starts: list[int]) -> Inspection:
    """All lines are there, once. Are they where they belong, as far as that can still be told?"""
    without = _without(patch, text, starts)
    if patch.new_blob in blob_ids(data):
        return Inspection(State.PATCHED, "", data, without, lines_found=True)
    if patch.old_blob in blob_ids(without):
        expected = [[hunk.after] for hunk in patch.hunks]
    else:
        expected = [_places(hunk, Text.of(without)) for hunk in patch.hunks]
    inserted = 0
    for hunk, start, places in zip(patch.hunks, starts, expected, strict=True):
        if places and start - inserted not in places:
            reason = f"line {start + 1} is DDO's but stands in the wrong place; `ddo revert` takes DDO's lines out"
            return Inspection(State.CONFLICTING, reason, None, without, lines_found=True)
        inserted += len(hunk.lines)
    if reason := _python_doubt(patch, data, starts):
        return Inspection(State.CONFLICTING, f"{reason}; `ddo revert` takes DDO's lines out", None, without, True)
    note = "" if all(expected) else "edited around DDO's lines"
    return Inspection(State.PATCHED, note, data, without, lines_found=True)


def _places(hunk: Hunk, text: Text) -> list[int]:
    """Every number of lines after which the recorded neighbours meet."""
    digests = padded_digests(text.lines)
    wanted = [*hunk.before_digests, *hunk.after_digests]
    return [at for at in range(len(text.lines) + 1) if digests[at : at + 2 * NEIGHBOURS] == wanted]


def _standing(patch: FilePatch, text: Text) -> list[list[int]]:
    """The ways to find all inserted blocks in order; two are enough to know that it is not one."""
    found: list[list[int]] = [[]]
    for number, hunk in enumerate(patch.hunks):
        block = hunk.lines
        at = [i for i in range(len(text.lines)) if text.lines[i : i + len(block)] == block]
        longer = []
        for way in found:
            free = way[-1] + len(patch.hunks[number - 1].lines) if way else 0
            longer += [[*way, start] for start in at if start >= free]
        found = longer[:_ENOUGH]
    return found


def _without(patch: FilePatch, text: Text, starts: list[int]) -> bytes:
    ours = {
        start + offset for start, hunk in zip(starts, patch.hunks, strict=True) for offset in range(len(hunk.lines))
    }
    return text.remove(ours).data


def _starts(places: list[int], hunks: Sequence[Hunk]) -> list[int]:
    """Where the blocks begin once they are in."""
    starts, inserted = [], 0
    for place, hunk in zip(places, hunks, strict=True):
        starts.append(place + inserted)
        inserted += len(hunk.lines)
    return starts


def _doubt(patch: FilePatch, places: list[list[int]]) -> str:
    """Why the lines cannot go in, or nothing."""
    for number, found in enumerate(places, 1):
        if len(found) != 1:
            how_many = "no place" if not found else f"{len(found)} places"
            return (
                f"it is not the version that the patch was made for, and insertion {number} of {len(places)} "
                f"fits {how_many}; take a version that fits, or put the lines in by hand, where it has them "
                f"(`git show {patch.old_blob[:12]}`): {_by_hand(patch)}"
            )
    order = [found[0] for found in places]
    if order != sorted(set(order)):
        return "its parts stand in another order than in the version that the patch was made for"
    return ""


def _by_hand(patch: FilePatch) -> str:
    """The lines, each with the number of the line that it follows in the version that the patch was made for."""
    return ", ".join(
        f"after line {hunk.after} " + " and ".join(f"`{line.decode(errors='replace')}`" for line in hunk.lines)
        for hunk in patch.hunks
    )


def _python_doubt(patch: FilePatch, data: bytes, starts: list[int]) -> str:
    """Inserted lines must be statements or decorators, not part of a string that somebody put around them."""
    if not patch.path.endswith(".py"):
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
    except (SyntaxError, ValueError) as error:
        return f"with DDO's lines it is no valid Python ({error})"
    decorators = [one for node in ast.walk(tree) for one in getattr(node, "decorator_list", ())]
    begins = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)} | {one.lineno for one in decorators}
    for start in starts:
        if start + 1 not in begins:
            return f"line {start + 1} would be DDO's but would not be a statement there"
    return ""
