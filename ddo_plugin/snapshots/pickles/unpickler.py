"""Reading a network pickle without running anything that is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.snapshots.pickles.constructors import constructors
from ddo_plugin.snapshots.pickles.file_kind import FileKind, kind_of
from ddo_plugin.snapshots.pickles.machine import Findings, Machine
from ddo_plugin.snapshots.pickles.nodes import BrokenError, ForbiddenError


@dataclass(frozen=True)
class Survey:
    """What a pickle holds, as inert data, and what was found on the way."""

    value: Any
    globals: dict[str, bool]  # every global it refers to, nested pickles included; whether it is allowed
    refusals: tuple[str, ...]  # why it is not loaded; empty: it would be
    damage: str | None = None  # where it could not be read to its end


def read(path: Path, *, trust_option: str = "--trust") -> Any:
    """The value of a network pickle, its objects inert (`nodes.Node`). `trust_option` is what the user would add."""
    _require_pickle(path)
    try:
        return _run(path, Findings(), survey=False)
    except ForbiddenError as error:
        raise UserError(
            f"{path}: not loaded, it may run code ({error}), which no network of EDM or EDM2 needs. "
            f"If you trust whoever made it: {trust_option}"
        ) from None
    except BrokenError as error:
        raise UserError(
            f"{path}: not a network pickle, or a damaged one ({error}); download or copy it again"
        ) from None


def survey(path: Path) -> Survey:
    """The same for a person who wants to know: goes on after what `read` refuses."""
    _require_pickle(path)
    findings, value, damage = Findings(), None, None
    try:
        value = _run(path, findings, survey=True)
    except BrokenError as error:
        damage = str(error)
    return Survey(value, dict(sorted(findings.globals.items())), tuple(findings.refusals), damage)


def _run(path: Path, findings: Findings, *, survey: bool) -> Any:
    with path.open("rb") as file:
        machine = Machine(constructors(findings, survey=survey), findings, survey=survey)
        return machine.run(file, path.stat().st_size)


def _require_pickle(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    kind = kind_of(path)
    if kind is not FileKind.PICKLE:
        raise UserError(f"{path}: {kind.value}, not a network pickle; give a network-snapshot-*.pkl")
