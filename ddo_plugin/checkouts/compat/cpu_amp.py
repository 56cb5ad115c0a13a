"""Mixed precision of VAR on a CPU: what asks for autocast on a GPU gets the CPU's, and gradients are scaled there."""

from __future__ import annotations

import functools
from typing import Any

from ddo_plugin.base.errors import UserError


def move_to_the_cpu() -> None:
    """Without it torch warns, leaves autocast off and scales nothing: a run in fp32, whatever was asked for."""
    _autocast()
    _scale_gradients()


def _autocast() -> None:
    import torch

    original = torch.autocast.__init__

    @functools.wraps(original)
    def __init__(  # noqa: N807
        self: Any, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype if enabled else None  # a GPU's may be none of the CPU's (torch 2.1)
        original(self, device_type, dtype, enabled, cache_enabled)

    torch.autocast.__init__ = __init__  # type: ignore[method-assign]


def _scale_gradients() -> None:
    import torch

    amp: Any = torch.cuda.amp
    scaler = getattr(torch.amp, "GradScaler", None)
    if scaler is None:
        amp.GradScaler = _refuse
    else:
        amp.GradScaler = functools.partial(scaler, "cpu")


def _refuse(*_: Any, **__: Any) -> None:
    import torch

    raise UserError(
        f"torch {torch.__version__} cannot scale gradients on a CPU, and fp16 loses the small ones unscaled; "
        "train in bf16 (--fp16=2) or in fp32 (--fp16=0)"
    )
