"""Which of several processes this is: from torch.distributed once it runs, before that from torchrun's variables."""

from __future__ import annotations

import os
import sys
from typing import Any


def under_torchrun() -> bool:
    """Return whether torchrun, or a launcher that sets the same variables, has started this process."""
    return "RANK" in os.environ


def rank() -> int:
    """Return the number of this process among all, 0 if it is alone."""
    distributed = _distributed()
    return distributed.get_rank() if distributed else int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return the number of this process among those on the same machine, 0 if it is alone.

    A launcher that does not set LOCAL_RANK is taken to have started all ranks on one machine.
    """
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("RANK") or 0)


def world_size() -> int:
    """Return the number of processes, 1 if this process is alone."""
    distributed = _distributed()
    return distributed.get_world_size() if distributed else int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this process is the one that writes files and prints for all."""
    return rank() == 0


def _distributed() -> Any:
    """Return torch.distributed if its process group exists. If torch is not imported yet, there is no group."""
    distributed = sys.modules.get("torch.distributed")
    ready = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if ready else None
