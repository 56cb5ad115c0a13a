"""How long upstream's schedule of learning rate and weight decay lasts; its shape stays upstream's."""

from __future__ import annotations

from typing import Any

from utils import lr_control


def lay_over(batches: int) -> None:
    """Let the schedule, warm-up included, last this many batches, although the loop ends before."""
    upstreams = lr_control.lr_wd_annealing

    def annealing(*settings: Any, **ends: Any) -> Any:
        *others, warm_up, length = settings
        return upstreams(*others, warm_up * batches / length, batches, **ends)

    lr_control.lr_wd_annealing = annealing  # the loop looks it up by this name
