"""Where a patch's lines belong in a file, or already are: decided by content, refused if in doubt."""

from __future__ import annotations

import ast
import enum
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ddo_plugin.checkouts.patching import scopes
from ddo_plugin.checkouts.patching.format import NEIGHBOURS, FilePatch, Hunk, padded_digests
from ddo_plugin.checkouts.patching.text import Text, blob_ids

_ENOUGH = 1000  # ways to match DDO's lines; only a file that repeats them many times has more


class State(enum.Enum):
    """The state of a file with respect to a patch."""

    PRISTINE = "pristine"
    SHIFTED = "patchable"  # another version than the patch was made for, but every line has exactly one place
    PATCHED = "patched"
    CONFLICTING = "conflicting"


@dataclass(frozen=True)
class Inspection:
    """The state of a file, and its content with and without the inserted lines."""

    state: State
    reason: str = ""  # why, for people
    with_lines: bytes | None = None  # None if the lines cannot be inserted
    without_lines: bytes | None = None  # None if the lines cannot be distinguished from the rest
    lines_found: bool = False  # whether the file has some of the inserted lines


def inspect(patch: FilePatch, data: bytes) -> Inspection:
    """Return the state of a file with this content."""
    if patch.old_blob in blob_ids(data):
        return _insert(patch, data, [hunk.after for hunk in patch.hunks], State.PRISTINE)
    text = Text.of(data)
    standing = _standing(patch, text)
    if len(standing) == 1:
        return _patched(patch, data, text, standing[0])
    if standing:
        return Inspection(State.CONFLICTING, "it has DDO's lines more than once; restore it", lines_found=True)
    places = [_places(hunk, text) for hunk in patch.hunks]
    if present := sum(_standing(FilePatch(patch.path, "", "", (hunk,)), text) != [] for hunk in patch.hunks):
        reason = f"it has only {present} of DDO's {len(patch.hunks)} insertions; restore it"
        return Inspection(State.CONFLICTING, reason, lines_found=True)
    if reason := _doubt(patch, places):
        return Inspection(State.CONFLICTING, reason)
    return _insert(patch, data, [fitting[0] for fitting in places], State.SHIFTED)


def _insert(patch: FilePatch, data: bytes, places: list[int], state: State) -> Inspection:
    text = Text.of(data)
    blocks = {place: hunk.lines for place, hunk in zip(places, patch.hunks, strict=True)}
    with_lines = text.insert(blocks).data
    starts = _starts(places, patch.hunks)
    if _standing(patch, Text.of(with_lines)) != [starts] or _without(patch, Text.of(with_lines), starts) != data:
        return Inspection(State.CONFLICTING, "it already has lines like DDO's; restore it", lines_found=True)
    if reason := _python_doubt(patch, with_lines, starts):
        return Inspection(State.CONFLICTING, f"{reason}; undo this edit, or use a version that fits")
    return Inspection(state, with_lines=with_lines, without_lines=data)


def _patched(patch: FilePatch, data: bytes, text: Text, starts: list[int]) -> Inspection:
    """Return the state of a file that has all inserted lines once, as far as their places can be checked."""
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
            reason = f"line {start + 1} is DDO's but in the wrong place; `ddo revert` removes DDO's lines"
            return Inspection(State.CONFLICTING, reason, None, without, lines_found=True)
        inserted += len(hunk.lines)
    if reason := _python_doubt(patch, data, starts):
        return Inspection(State.CONFLICTING, f"{reason}; `ddo revert` removes DDO's lines", None, without, True)
    note = "" if all(expected) else "edited around DDO's lines"
    return Inspection(State.PATCHED, note, data, without, lines_found=True)


def _places(hunk: Hunk, text: Text) -> list[int]:
    """Return the line numbers after which the lines have the recorded neighbours."""
    digests = padded_digests(text.lines)
    wanted = [*hunk.before_digests, *hunk.after_digests]
    return [at for at in range(len(text.lines) + 1) if digests[at : at + 2 * NEIGHBOURS] == wanted]


def _standing(patch: FilePatch, text: Text) -> list[list[int]]:
    """Return the ways to match all inserted blocks in order, each as a list of starts. Two ways are ambiguous."""
    ways: list[list[int]] = [[]]
    for number, hunk in enumerate(patch.hunks):
        block = hunk.lines
        at = [i for i in range(len(text.lines)) if text.lines[i : i + len(block)] == block]
        longer = []
        for way in ways:
            free = way[-1] + len(patch.hunks[number - 1].lines) if way else 0
            longer += [[*way, start] for start in at if start >= free]
        ways = longer[:_ENOUGH]
    return ways


def _without(patch: FilePatch, text: Text, starts: list[int]) -> bytes:
    ours = {
        start + offset for start, hunk in zip(starts, patch.hunks, strict=True) for offset in range(len(hunk.lines))
    }
    return text.remove(ours).data


def _starts(places: list[int], hunks: Sequence[Hunk]) -> list[int]:
    """Return the lines at which the blocks begin once they are inserted."""
    starts, inserted = [], 0
    for place, hunk in zip(places, hunks, strict=True):
        starts.append(place + inserted)
        inserted += len(hunk.lines)
    return starts


def _doubt(patch: FilePatch, places: list[list[int]]) -> str:
    """Return why the lines cannot be inserted, or an empty string."""
    for number, fitting in enumerate(places, 1):
        if len(fitting) != 1:
            how_many = f"{len(fitting)} places" if fitting else "no place"
            return (
                f"it is another version than the patch was made for, and insertion {number} of {len(places)} "
                f"fits {how_many}; use a version that fits, or insert the lines by hand, as in the patch's version "
                f"(`git show {patch.old_blob[:12]}`): {_by_hand(patch)}"
            )
    order = [fitting[0] for fitting in places]
    if order != sorted(set(order)):
        return "its parts are in another order than in the version that the patch was made for"
    return ""


def _by_hand(patch: FilePatch) -> str:
    """List the lines, each with the number of the line that it follows in the version of the patch."""
    return ", ".join(
        f"after line {hunk.after} " + " and ".join(f"`{line.decode(errors='replace')}`" for line in hunk.lines)
        for hunk in patch.hunks
    )


def _python_doubt(patch: FilePatch, data: bytes, starts: list[int]) -> str:
    """Return why the inserted lines are no statements or decorators, or ""; they may be inside a string."""
    if not patch.path.endswith(".py"):
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
            compile(tree, patch.path, "exec", dont_inherit=True)  # refuses more, such as `return` outside a function
    except (SyntaxError, ValueError, RecursionError) as error:
        return f"with DDO's lines it is not valid Python ({error})"
    decorators = [decorator for node in ast.walk(tree) for decorator in getattr(node, "decorator_list", ())]
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    begins = {node.lineno for node in (*statements, *decorators)}
    for start in starts:
        if start + 1 not in begins:
            return f"line {start + 1} would be DDO's but would not be a statement there"
    inserted = [(start + 1, len(hunk.lines), hunk.place) for start, hunk in zip(starts, patch.hunks, strict=True)]
    return scopes.doubt(tree, inserted)
