"""Read a network pickle without running any code in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.snapshots.pickles.allowance import Allowance
from ddo_plugin.snapshots.pickles.constructors import constructors
from ddo_plugin.snapshots.pickles.file_kind import FileKind, kind_of
from ddo_plugin.snapshots.pickles.machine import Findings, Machine
from ddo_plugin.snapshots.pickles.nodes import BrokenError, ForbiddenError, LimitError


@dataclass(frozen=True)
class Survey:
    """The content of a pickle as inert data, and what it refers to."""

    value: Any
    globals: dict[str, bool]  # every global that it or a nested pickle refers to, and whether that is allowed
    refusals: tuple[str, ...]  # the reasons against loading; empty if it can be loaded
    sources: dict[str, tuple[str, ...]]  # every Python source in it, with the names of its classes
    damage: str | None = None  # why it could not be read to its end


def read(path: Path, *, trust_option: str = "--trust") -> Any:
    """Return the value of a network pickle with inert objects (`nodes.Node`). Errors suggest `trust_option`."""
    _require_pickle(path)
    try:
        return _run(path, _findings(path), survey=False)
    except ForbiddenError as error:
        raise UserError(
            f"{path}: refused, because loading it may run code ({error}), which no network needs; "
            f"if you trust its author, add {trust_option}"
        ) from None
    except LimitError as error:
        raise UserError(f"{path}: {error}") from None
    except BrokenError as error:
        raise UserError(f"{path}: not a network pickle, or damaged ({error}); download or copy it again") from None


def survey(path: Path) -> Survey:
    """Return everything about a network pickle, also about one that `read` refuses."""
    _require_pickle(path)
    findings, value, damage = _findings(path), None, None
    try:
        value = _run(path, findings, survey=True)
    except BrokenError as error:
        damage = str(error)
    sources = {source: tuple(reversed(names)) for source, names in findings.sources.items()}  # outer first
    return Survey(value, dict(sorted(findings.globals.items())), tuple(findings.refusals), sources, damage)


def _findings(path: Path) -> Findings:
    return Findings(Allowance(path.stat().st_size))


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
