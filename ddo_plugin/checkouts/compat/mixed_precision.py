"""Mixed precision on a CPU: autocast and gradient scaling that upstream requests of a GPU happen on the CPU."""

from __future__ import annotations

import functools
from typing import Any

from ddo_plugin.base.errors import UserError


def move_to_the_cpu() -> None:
    """Redirect both to the CPU. torch alone would warn and compute in fp32."""
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
            device_type, dtype = "cpu", dtype if enabled else None  # torch 2.1 may lack it on CPUs
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
        f"torch {torch.__version__} cannot scale gradients on a CPU, and without scaling fp16 loses small gradients; "
        "train in bf16 or fp32"
    )
