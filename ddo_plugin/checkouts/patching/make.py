"""Write a patch from a git checkout whose working copy has the inserted lines. For maintainers.

python -m ddo_plugin.checkouts.patching.make CHECKOUT patches/edm.patch
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_write, write_json
from ddo_plugin.checkouts.patching.format import NEIGHBOURS, FilePatch, Hunk, padded_digests, parse, render
from ddo_plugin.checkouts.patching.placing import State, inspect
from ddo_plugin.checkouts.patching.scopes import place_name
from ddo_plugin.checkouts.patching.text import Text, blob_id


def make(checkout: Path) -> tuple[FilePatch, ...]:
    """Return the insertions of a git working copy against its HEAD."""
    names = _git(checkout, "diff", "--name-only", "-z", "HEAD").decode().split("\0")
    patches = [_checked(checkout, name) for name in names if name]
    if not patches:
        raise UserError(f"{checkout}: no change against its HEAD; insert the lines first")
    return tuple(patches)


def compare(path: str, old: bytes, new: bytes) -> FilePatch:
    """Return the patch that turns `old` into `new`. Refuse other changes than insertions."""
    before, after = Text.of(old).lines, Text.of(new).lines
    inserted: dict[int, list[bytes]] = {}
    position = 0
    for line in after:
        if position < len(before) and line == before[position]:
            position += 1
        else:
            inserted.setdefault(position, []).append(line)
    if position < len(before):
        raise UserError(f"{path}: line {position + 1} was changed or deleted; a patch only inserts lines")
    digests = padded_digests(before)
    places = _places(path, new, inserted)
    hunks = [
        Hunk(
            at,
            tuple(lines),
            tuple(digests[at : at + NEIGHBOURS]),
            tuple(digests[at + NEIGHBOURS : at + 2 * NEIGHBOURS]),
            places.get(at),
        )
        for at, lines in inserted.items()
    ]
    for hunk in hunks:
        _refuse_common(path, before, hunk)
    return FilePatch(path, blob_id(old), blob_id(new), tuple(hunks))


def _places(path: str, new: bytes, inserted: Mapping[int, Sequence[bytes]]) -> dict[int, str]:
    """Return the functions and blocks that the lines are in, if the file is Python."""
    if not path.endswith(".py"):
        return {}
    try:
        tree = ast.parse(new)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}: with the inserted lines it is not valid Python ({error})") from None
    places, count = {}, 0
    for at, lines in inserted.items():
        places[at] = place_name(tree, at + count + 1)
        count += len(lines)
    return places


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("patch", type=click.Path(dir_okay=False, path_type=Path))
def main(checkout: Path, patch: Path) -> None:
    """Write a patch from the lines inserted in a checkout.

    CHECKOUT is a git checkout with the lines inserted and not committed. PATCH is the file to write; the JSON file with
    the digests is written beside it.
    """
    diff, digests = render(make(checkout))
    parse(diff, digests)
    with atomic_write(patch) as file:
        file.write(diff)
    write_json(patch.with_suffix(".json"), digests)
    click.echo(f"{patch}: {sum(line.startswith(b'@@') for line in diff.splitlines())} insertions")


def _checked(checkout: Path, name: str) -> FilePatch:
    old = _git(checkout, "show", f"HEAD:{name}")
    new = (checkout / name).read_bytes()
    if b"\r\n" not in old:
        new = new.replace(b"\r\n", b"\n")
    patch = compare(name, old, new)
    inspection = inspect(patch, old)
    if inspection.state is not State.PRISTINE or inspection.with_lines != new:
        raise UserError(f"{name}: the inserted lines cannot be distinguished from upstream's: {inspection.reason}")
    return patch


def _refuse_common(path: str, before: tuple[bytes, ...], hunk: Hunk) -> None:
    """Refuse an ambiguous place: each side needs a neighbour that occurs only once in the file."""
    sides = before[max(hunk.after - NEIGHBOURS, 0) : hunk.after], before[hunk.after : hunk.after + NEIGHBOURS]
    for side in sides:
        if before and len(side) == NEIGHBOURS and all(before.count(line) > 1 for line in side):
            raise UserError(f"{path}: the lines around line {hunk.after} occur elsewhere too; insert at a unique place")
    block = hunk.lines
    if any(before[at : at + len(block)] == block for at in range(len(before))):
        raise UserError(
            f"{path}: upstream itself has the line {block[0].decode()!r}; add a comment to the inserted one"
        )


def _git(checkout: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"git {arguments[0]} failed in {checkout}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
