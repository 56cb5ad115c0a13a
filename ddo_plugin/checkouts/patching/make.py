"""For maintainers: write a patch from a checkout whose working copy has the inserted lines.

python -m ddo_plugin.checkouts.patching.make CHECKOUT patches/edm.patch
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_write, write_json
from ddo_plugin.checkouts.patching.format import NEIGHBOURS, FilePatch, Hunk, padded_digests, parse, render
from ddo_plugin.checkouts.patching.placing import State, inspect
from ddo_plugin.checkouts.patching.text import Text, blob_id


def make(checkout: Path) -> tuple[FilePatch, ...]:
    """The insertions of a git working copy against its HEAD."""
    names = _git(checkout, "diff", "--name-only", "-z", "HEAD").decode().split("\0")
    patches = [_checked(checkout, name) for name in names if name]
    if not patches:
        raise UserError(f"{checkout} has no change against its HEAD; put the lines in first")
    return tuple(patches)


def compare(path: str, old: bytes, new: bytes) -> FilePatch:
    """The patch that turns `old` into `new`, if that takes insertions alone."""
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
    hunks = [
        Hunk(
            at,
            tuple(lines),
            tuple(digests[at : at + NEIGHBOURS]),
            tuple(digests[at + NEIGHBOURS : at + 2 * NEIGHBOURS]),
        )
        for at, lines in inserted.items()
    ]
    for hunk in hunks:
        _refuse_common(path, before, hunk)
    return FilePatch(path, blob_id(old), blob_id(new), tuple(hunks))


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("patch", type=click.Path(dir_okay=False, path_type=Path))
def main(checkout: Path, patch: Path) -> None:
    """Write PATCH, and the digests beside it, from the uncommitted insertions in CHECKOUT."""
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
    found = inspect(patch, old)
    if found.state is not State.PRISTINE or found.with_lines != new:
        raise UserError(f"{name}: the inserted lines cannot be told from upstream's: {found.reason}")
    return patch


def _refuse_common(path: str, before: tuple[bytes, ...], hunk: Hunk) -> None:
    """Each side needs a neighbour that stands once in the file: then two places cannot be taken for each other."""
    sides = before[max(hunk.after - NEIGHBOURS, 0) : hunk.after], before[hunk.after : hunk.after + NEIGHBOURS]
    for side in sides:
        if before and len(side) == NEIGHBOURS and all(before.count(line) > 1 for line in side):
            where = f"the lines around line {hunk.after} stand elsewhere too"
            raise UserError(f"{path}: {where}; insert at a place that is unlike others")
    block = hunk.lines
    if any(before[at : at + len(block)] == block for at in range(len(before))):
        raise UserError(f"{path}: upstream has {block[0].decode()!r} itself; end the line in a comment of ours")


def _git(checkout: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"git {arguments[0]} failed in {checkout}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
