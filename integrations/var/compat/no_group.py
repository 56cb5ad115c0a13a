"""VAR averages its meters over the ranks even if there is only one.

Started by plain `python train.py`, on a GPU too, there is no process group, and its first epoch ends in an error.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from ddo_integrations.var.compat.family import FAMILY
from ddo_plugin import Fix, owns, under_torchrun


def _needed() -> bool:
    return not under_torchrun()


def _apply() -> None:
    import torch.distributed

    torch.distributed.barrier = _skipped_without_group(torch.distributed.barrier)
    torch.distributed.all_reduce = _skipped_without_group(torch.distributed.all_reduce)


def _skipped_without_group(original: Callable[..., Any]) -> Callable[..., Any]:
    import torch.distributed

    @functools.wraps(original)
    def collective(*args: Any, **kwargs: Any) -> Any:
        if not torch.distributed.is_initialized() and owns(sys._getframe(1).f_globals, FAMILY):
            return None
        return original(*args, **kwargs)

    return collective


FIX = Fix(
    "no-group",
    breaks="a run without torchrun fails after its first epoch: VAR averages over ranks, but there is no process group",
    does="barrier and all_reduce do nothing if VAR's files call them without a process group",
    needed=_needed,
    apply=_apply,
)
