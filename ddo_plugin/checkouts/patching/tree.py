"""A patch and a whole checkout: the state of each file, and changes to all files together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.patching.format import FilePatch
from ddo_plugin.checkouts.patching.placing import Inspection, State, inspect
from ddo_plugin.checkouts.patching.transaction import replace_all


@dataclass(frozen=True)
class PatchedFile:
    """A file that the patch changes."""

    path: str  # relative to the checkout
    target: Path  # the file behind symbolic links
    data: bytes
    inspection: Inspection


def inspect_tree(root: Path, patches: Sequence[FilePatch]) -> list[PatchedFile]:
    """Return the state of every file that the patch changes. `root` is absolute and free of symbolic links."""
    return [_inspect_file(root, patch) for patch in patches]


def applied(root: Path, files: Sequence[PatchedFile]) -> dict[Path, tuple[bytes, bytes]]:
    """Return the old and new content of the files that `ddo apply` changes; empty if all are patched."""
    for file in files:
        if file.inspection.state is State.CONFLICTING or file.inspection.with_lines is None:
            raise UserError(f"{file.path} cannot be patched: {file.inspection.reason}. Nothing was changed.")
    return _changes(root, {file.target: (file.data, file.inspection.with_lines or b"") for file in files})


def reverted(root: Path, files: Sequence[PatchedFile]) -> dict[Path, tuple[bytes, bytes]]:
    """Return the old and new content of the files that `ddo revert` changes; empty if none has inserted lines."""
    new = {}
    for file in files:
        if file.inspection.without_lines is not None:
            new[file.target] = (file.data, file.inspection.without_lines)
        elif file.inspection.lines_found:
            raise UserError(f"{file.path} cannot be reverted: {file.inspection.reason}. Nothing was changed.")
    return _changes(root, new)


def write(root: Path, changes: dict[Path, tuple[bytes, bytes]]) -> None:
    """Write the changes that `applied` or `reverted` returned, all or none."""
    if not changes:
        return
    try:
        replace_all(root, changes)
    except OSError as error:
        raise UserError(f"{error.filename or root}: cannot be written ({error.strerror or error})") from None


def _inspect_file(root: Path, patch: FilePatch) -> PatchedFile:
    target = (root / patch.path).resolve()
    try:
        data = target.read_bytes()
    except OSError as error:
        return PatchedFile(patch.path, target, b"", Inspection(State.CONFLICTING, f"{error.strerror}: {target}"))
    return PatchedFile(patch.path, target, data, inspect(patch, data))


def _changes(root: Path, new: dict[Path, tuple[bytes, bytes]]) -> dict[Path, tuple[bytes, bytes]]:
    changes = {target: (old, new) for target, (old, new) in new.items() if old != new}
    for target in changes:
        if not target.is_relative_to(root):
            raise UserError(
                f"{target} lies outside {root}, behind a symbolic link; use `ddo run`, which does not change it"
            )
    return changes
