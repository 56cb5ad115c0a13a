"""Training states of EDM2: which one a run would go on from, and that none is ever half-written."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import torch
from torch_utils import distributed as dist

from ddo_plugin import Finetuning, UserError, atomic_write
from ddo_plugin.finetuning import session as finetuning
from ddo_plugin.snapshots import training_state

NAME = re.compile(r"training-state-(\d+)\.pt")
OTHER = "move it away, or use another --outdir"


def check(run: Finetuning, total_nimg: int, batch_size: int) -> None:
    """A folder that holds training states goes on from the newest whole one: it must be of this round."""
    state = next((path for path in _newest_first(run.run.outdir) if not training_state.is_damaged(path, OTHER)), None)
    if state is None:
        return
    held = torch.load(str(state), map_location="cpu", mmap=True, weights_only=False)  # as upstream is about to
    loss = held.get("loss_fn") or {}
    if "reference" not in loss:
        raise UserError(f"{state} is no state of a DDO run, and this run would go on from it; use another --outdir")
    if loss["reference"] != run.reference.sha256:
        raise UserError(
            f"{state} belongs to a round against another reference (sha256 {loss['reference'][:12]}…) than "
            f"--ddo={run.reference.source}; use another --outdir"
        )
    run.check_same(loss.get("settings", {}), state)
    done = held["state"]["cur_nimg"]
    if done >= total_nimg:
        finetuning.leave_if_continued(run.run.options, state)
        raise UserError(f"{state}: this round is finished; use another --outdir, or a --duration above {done}")
    run.leave_if_paused(loss["nimg"] // batch_size)


def set_aside_damaged(folder: Path) -> None:
    """Rename the newest states until one is whole, and say so; upstream would stop at the first."""
    if dist.get_rank() == 0:
        for path in folder.glob(".training-state-*.pt.*.tmp"):
            path.unlink()  # a kill while it was written left it
        for path in _newest_first(folder):
            if not training_state.is_damaged(path, OTHER):
                break
            training_state.set_aside(path)
    torch.distributed.barrier()


def write_atomically() -> None:
    """Upstream writes a state in place; here it appears under its name once it is whole."""
    io: Any = dist.CheckpointIO
    original = io.save

    @functools.wraps(original)
    def save(self: Any, pt_path: str, verbose: bool = True) -> None:
        if verbose:
            dist.print0(f"Saving {pt_path}")
        if dist.get_rank() == 0:
            with atomic_write(Path(pt_path)) as file:
                original(self, file, verbose=False)
        else:
            original(self, pt_path, verbose=False)

    io.save = save


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("training-state-*.pt") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[-1].removesuffix(".pt")), reverse=True)
