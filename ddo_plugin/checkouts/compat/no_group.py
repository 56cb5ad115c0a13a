"""VAR averages its meters over the ranks without asking whether there is more than one.

Started by plain `python train.py`, on a GPU too, there is no process group, and its first epoch ends in an error.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from ddo_plugin.checkouts.compat import ownership
from ddo_plugin.checkouts.compat.fix import Fix


def _needed() -> bool:
    return "RANK" not in os.environ


def _apply() -> None:
    import torch.distributed

    torch.distributed.barrier = _alone_there_is_nobody(torch.distributed.barrier)
    torch.distributed.all_reduce = _alone_there_is_nobody(torch.distributed.all_reduce)


def _alone_there_is_nobody(original: Callable[..., Any]) -> Callable[..., Any]:
    import torch.distributed

    @functools.wraps(original)
    def collective(*args: Any, **kwargs: Any) -> Any:
        if not torch.distributed.is_initialized() and ownership.owns(sys._getframe(1).f_globals, ownership.VAR):
            return None
        return original(*args, **kwargs)

    return collective


FIX = Fix(
    "no-group",
    breaks="a run without torchrun ends after its first epoch: VAR averages over ranks that are not there",
    does="barrier and all_reduce that VAR's files call without a process group do nothing",
    needed=_needed,
    apply=_apply,
    families=(ownership.VAR,),
)
