"""Training states of a round, in the form and under a name that upstream's own resume finds."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddo_integrations.var.formats import is_native, read_tensors
from ddo_plugin import Session, UserError, atomic_write, is_first, rank, set_state_aside, state_is_damaged

FOUND_BY_UPSTREAM = "ar-ckpt*.pth"  # upstream resumes from the newest of these
NAME = "ar-ckpt-ddo.pth"
OURS = "ddo"
# What a round did that recorded nothing of it.
SCHEDULE_BEFORE = {"ddo_schedule": "round"}
FAKES_BEFORE = {"ddo_fakes_from": "tokens", "ddo_fakes_cfg": 0.0, "ddo_fakes_precision": "amp"}
OTHER = "move it away, or use another --local_out_dir_path"


@dataclass(frozen=True)
class Standing:
    """Where a round resumes, and this rank's random state before the round's first batch."""

    done: int  # batches
    random: Tensor


def find(session: Session, unrecorded: Mapping[str, Any]) -> Standing | None:
    """Return where the round resumes; refuse states of another round, which upstream would resume from.

    `unrecorded` holds settings of rounds that began before these were recorded.
    """
    outdir = session.outdir
    if glob.escape(str(outdir)) != str(outdir):
        raise UserError(
            f"--local_out_dir_path={outdir}: upstream cannot find training states in a folder with *, ? or [ in its "
            "name; use another name"
        )
    existing = list(outdir.glob(FOUND_BY_UPSTREAM))
    complete = [path for path in existing if not state_is_damaged(path, OTHER)]
    states = {path: read_tensors(path, "--local_out_dir_path") for path in complete}
    for path, state in states.items():
        _check(path, state, session, unrecorded)
    if is_first():
        for path in set(existing) - set(complete):
            set_state_aside(path)
    newest = max(complete, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        return None
    return Standing(states[newest]["iter"], states[newest]["trainer"][OURS]["begin"][rank()])


def write(outdir: Path, batches_done: int, trainer: Mapping[str, Any], random: Mapping[str, list[Tensor]]) -> None:
    """Write a training state, which replaces the one before atomically. `random` holds all ranks' random states."""
    trainer = {**trainer, OURS: {**trainer[OURS], **random}}
    with atomic_write(outdir / NAME) as file:
        torch.save({"epoch": 0, "iter": batches_done, "trainer": trainer, "args": {}}, file)


def _check(path: Path, state: Any, session: Session, unrecorded: Mapping[str, Any]) -> None:
    """Refuse a state of another round, and a finished round unless it may be continued."""
    record = state["trainer"].get(OURS) if is_native(state) else None
    if record is not None:
        record = {**record, "settings": {**unrecorded, **_completed(record["settings"])}}
    session.check_state(path, record, "use another --local_out_dir_path")
    if state["epoch"]:
        session.stop_if_continued(path)
        raise UserError(f"{path}: this round is finished; use another --local_out_dir_path")


def _completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add the settings of a round that was begun before there were options for them."""
    drew_fakes = settings["ddo_objective"] != "mle" and settings["ddo_fakes"] is None
    return SCHEDULE_BEFORE | (FAKES_BEFORE if drew_fakes else {}) | dict(settings)
