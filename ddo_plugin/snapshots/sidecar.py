"""The JSON file beside every snapshot that says where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ddo_plugin.base.files import sha256_file, write_json
from ddo_plugin.hooks.types import Run

SUFFIX = ".ddo.json"


def write(run: Run, snapshot: Path, step: int) -> Path:
    """Describe a snapshot that has just been written."""
    path = snapshot.with_name(snapshot.name + SUFFIX)
    options = {name: value for name, value in run.options.items() if value is not None}
    made_by = {"upstream": run.upstream, "options": options, **run.provenance}
    write_json(path, {"snapshot": snapshot.name, "sha256": sha256_file(snapshot), "step": step, **made_by})
    return path


def read(snapshot: Path) -> dict[str, Any]:
    """What the sidecar of a snapshot says."""
    return json.loads(snapshot.with_name(snapshot.name + SUFFIX).read_text())


def sha256(snapshot: Path) -> str | None:
    """The checksum that the snapshot had when it was written; None where no sidecar says."""
    return read(snapshot).get("sha256") if snapshot.with_name(snapshot.name + SUFFIX).exists() else None


def step(snapshot: Path) -> int:
    """How many optimizer steps of its round made this snapshot; 0 is the reference, as the round began."""
    return int(read(snapshot)["step"])


def steps(folder: Path) -> list[int]:
    """After which steps a run has left snapshots, one or several each."""
    return sorted({step(path) for path in described(folder)} - {0})


def described(folder: Path) -> list[Path]:
    """The snapshots that the sidecars in a run's folder tell of, oldest first; those deleted since are among them."""
    named = [path.with_name(path.name.removesuffix(SUFFIX)) for path in folder.glob(f"*{SUFFIX}")]
    return sorted(named, key=lambda path: (step(path), path.name))


def snapshots(folder: Path) -> list[Path]:
    """The snapshots in a run's folder, oldest first: the files that have a sidecar."""
    return [path for path in described(folder) if path.exists()]
