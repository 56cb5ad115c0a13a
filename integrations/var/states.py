"""Training states of a round: in the form and under a name that upstream's own resume finds."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddo_integrations.var.formats import is_native, read_tensors
from ddo_plugin import Finetuning, UserError, atomic_write
from ddo_plugin.finetuning import session as finetuning
from ddo_plugin.snapshots import training_state

FOUND_BY_UPSTREAM = "ar-ckpt*.pth"  # it goes on from the youngest
NAME = "ar-ckpt-ddo.pth"
OURS = "ddo"
OTHER = "move it away, or use another --local_out_dir_path"


@dataclass(frozen=True)
class Standing:
    """Where a round stands that goes on, and this rank's random state before its first batch."""

    done: int
    random: Tensor


def find(run: Finetuning, settings: Mapping[str, Any]) -> Standing | None:
    """What upstream would go on from must be of this round, with these settings, and whole."""
    folder = str(run.run.outdir)
    if glob.escape(folder) != folder:
        raise UserError(f"--local_out_dir_path={folder}: upstream would not find its states in such a name; drop *?[")
    found = list(run.run.outdir.glob(FOUND_BY_UPSTREAM))
    whole = [path for path in found if not training_state.is_damaged(path, OTHER)]
    states = {path: read_tensors(path, "--local_out_dir_path") for path in whole}
    for path, state in states.items():
        _check(path, state, run, settings)
    if os.environ.get("RANK", "0") == "0":
        for path in set(found) - set(whole):
            training_state.set_aside(path)
    newest = max(whole, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        return None
    return Standing(states[newest]["iter"], states[newest]["trainer"][OURS]["begin"][int(os.environ.get("RANK", "0"))])


def write(outdir: Path, batches_done: int, trainer: Mapping[str, Any], random: Mapping[str, list[Tensor]]) -> None:
    """A state that replaces the one before once it is whole. `random` holds all ranks' states."""
    trainer = {**trainer, OURS: {**trainer[OURS], **random}}
    with atomic_write(outdir / NAME) as file:
        torch.save({"epoch": 0, "iter": batches_done, "trainer": trainer, "args": {}}, file)


def _check(path: Path, state: Any, run: Finetuning, settings: Mapping[str, Any]) -> None:
    ours = state["trainer"].get(OURS) if is_native(state) else None
    if ours is None:
        raise UserError(
            f"{path} is no state of a DDO run, and upstream would go on from it instead of from --ddo; use another "
            "--local_out_dir_path"
        )
    if ours["reference"] != run.reference.sha256:
        raise UserError(
            f"{path} belongs to a round against another reference (sha256 {ours['reference'][:12]}…) than "
            f"--ddo={run.reference.source}; use another --local_out_dir_path"
        )
    for name, value in settings.items():
        before = ours["settings"].get(name)
        if before != value:
            raise UserError(
                f"{path} is of a round with {name}={before}, not {value}; go on with the same, or use "
                "another --local_out_dir_path"
            )
    if state["epoch"]:
        finetuning.leave_if_continued(run.run.options, path)
        raise UserError(f"{path}: this round is finished; use another --local_out_dir_path")
