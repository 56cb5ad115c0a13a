"""The sidecar: the JSON file beside every snapshot that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file, write_json
from ddo_plugin.base.reading import read_json
from ddo_plugin.hooks.types import Run

SUFFIX = ".ddo.json"
_REMEDY = "restore it from a copy, or delete it and its snapshot"


def write(run: Run, snapshot: Path, step: int) -> Path:
    """Write the sidecar of a snapshot."""
    path = snapshot.with_name(snapshot.name + SUFFIX)
    options = {name: value for name, value in run.options.items() if value is not None}
    made_by = {"upstream": run.upstream, "options": options, **run.provenance}
    write_json(path, {"snapshot": snapshot.name, "sha256": sha256_file(snapshot), "step": step, **made_by})
    return path


def write_merge(network: Path, sha256: str, merge: Mapping[str, Any], made_by: Mapping[str, Any]) -> None:
    """Write the sidecar of a merged network. `merge` names both parents and w."""
    content = {"snapshot": network.name, "sha256": sha256, "merge": merge, **made_by}
    write_json(network.with_name(network.name + SUFFIX), content)


def read(snapshot: Path) -> dict[str, Any]:
    """Return the content of a snapshot's sidecar."""
    path = snapshot.with_name(snapshot.name + SUFFIX)
    content = read_json(path, _REMEDY)
    if not (isinstance(content, dict) and (type(content.get("step")) is int or isinstance(content.get("merge"), dict))):
        raise UserError(f"{path}: does not describe a snapshot; {_REMEDY}")
    return content


def read_if_any(snapshot: Path) -> dict[str, Any]:
    """Return the content of a snapshot's sidecar, or an empty dict if it has none."""
    return read(snapshot) if snapshot.with_name(snapshot.name + SUFFIX).exists() else {}


def sha256(snapshot: Path) -> str | None:
    """Return the checksum that a snapshot had when it was written, None if no sidecar says."""
    return read_if_any(snapshot).get("sha256")


def merge(network: Path) -> dict[str, Any] | None:
    """Return the parents and the w that a network was merged from, None if it was not merged."""
    return read_if_any(network).get("merge")


def step(snapshot: Path) -> int:
    """Return the optimizer steps of the round before this snapshot. 0 is the reference, at the start of the round."""
    return int(read(snapshot)["step"])


def steps(folder: Path) -> list[int]:
    """Return the steps after which a run has written snapshots, without 0."""
    return sorted({step(path) for path in described(folder)} - {0})


def described(folder: Path) -> list[Path]:
    """Return the snapshots that the sidecars in a run's folder describe, oldest first, including deleted ones.

    Merged networks in the folder are left out: the run did not write them.
    """
    named = [path.with_name(path.name.removesuffix(SUFFIX)) for path in folder.glob(f"*{SUFFIX}")]
    return sorted((path for path in named if merge(path) is None), key=lambda path: (step(path), path.name))


def snapshots(folder: Path) -> list[Path]:
    """Return the snapshots in a run's folder, oldest first: the files that have a sidecar."""
    return [path for path in described(folder) if path.exists()]
