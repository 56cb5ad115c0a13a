"""Training states of EDM2: which state a run resumes from, and that no state is ever half-written."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import torch
from torch_utils import distributed as dist

from ddo_plugin import Session, UserError, atomic_write, set_state_aside, state_is_damaged

NAME = re.compile(r"training-state-(\d+)\.pt")
OTHER = "move it away, or use another --outdir"


def check(session: Session, total_nimg: int, batch_size: int) -> None:
    """Refuse to resume from a state of another round; upstream resumes from the newest whole state in the folder."""
    state = next((path for path in _newest_first(session.outdir) if not state_is_damaged(path, OTHER)), None)
    if state is None:
        return
    held = torch.load(str(state), map_location="cpu", mmap=True, weights_only=False)  # as upstream is about to
    record = held.get("loss_fn") or {}
    session.check_state(state, record if "reference" in record else None, "use another --outdir")
    done = held["state"]["cur_nimg"]
    if done >= total_nimg:
        session.stop_if_continued(state)
        raise UserError(f"{state}: this round is finished; use another --outdir, or a --duration above {done}")
    session.stop_if_paused(record["nimg"] // batch_size)


def set_aside_damaged(folder: Path) -> None:
    """Rename damaged states, newest first, until a whole one is found; upstream would fail on a damaged state."""
    if dist.get_rank() == 0:
        for path in folder.glob(".training-state-*.pt.*.tmp"):
            path.unlink()  # left by a kill during the write
        for path in _newest_first(folder):
            if not state_is_damaged(path, OTHER):
                break
            set_state_aside(path)
    torch.distributed.barrier()


def write_atomically() -> None:
    """Make upstream write a state under another name and rename it when it is whole."""
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
    states = [path for path in folder.glob("training-state-*.pt") if NAME.fullmatch(path.name)]
    return sorted(states, key=lambda path: int(path.name.split("-")[-1].removesuffix(".pt")), reverse=True)
