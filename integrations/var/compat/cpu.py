"""VAR on a CPU. A single process runs there by itself up to the end of its first epoch; ranks need this fix."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import MutableMapping
from typing import Any

from ddo_integrations.var.compat.family import FAMILY
from ddo_plugin import Fix, UserError, announce_cpu, local_rank, on_cpu, owns, under_torchrun


def _apply() -> None:
    _find_no_gpu()
    _keep_tensors()
    _let_adamw_take_the_cpu()
    dist: Any = sys.modules.get("dist")
    if dist is not None and owns(vars(dist), FAMILY):  # imported before, it has chosen its device already
        vars(dist)["__device"] = "cpu"


def _find_no_gpu() -> None:
    """Let VAR's `dist` find no GPU. It asks when it is imported, and again when it starts its ranks."""
    import torch

    original = torch.cuda.is_available

    @functools.wraps(original)
    def is_available() -> bool:
        caller = sys._getframe(1)
        if not owns(caller.f_globals, FAMILY):
            return original()
        if caller.f_globals.get("__name__") == "dist" and caller.f_code.co_name == "initialize":
            announce_cpu()
            _join(caller.f_globals)
        return False

    torch.cuda.is_available = is_available


def _join(dist: MutableMapping[str, Any]) -> None:
    """Start the process group, which upstream does on GPUs only: on a CPU each rank would train alone."""
    import torch.distributed

    if not under_torchrun():
        return
    try:
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:  # upstream would print a RuntimeError and continue alone
        reason = " ".join(str(error).split())
        raise UserError(f"rank {os.environ['RANK']} cannot join the others: {reason}; start them by torchrun") from None
    dist["__rank"], dist["__world_size"] = torch.distributed.get_rank(), torch.distributed.get_world_size()
    dist["__local_rank"] = local_rank()
    dist["__initialized"] = True


def _keep_tensors() -> None:
    """Leave tensors on the CPU that VAR's collectives move to the GPU, or that its meters create there."""
    import torch

    original_cuda, original_tensor = torch.Tensor.cuda, torch.tensor

    @functools.wraps(original_cuda)
    def cuda(self: Any, *args: Any, **kwargs: Any) -> Any:
        if owns(sys._getframe(1).f_globals, FAMILY):
            return self
        return original_cuda(self, *args, **kwargs)

    @functools.wraps(original_tensor)
    def tensor(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("device") == "cuda" and owns(sys._getframe(1).f_globals, FAMILY):
            kwargs["device"] = "cpu"
        return original_tensor(*args, **kwargs)

    torch.Tensor.cuda = cuda  # type: ignore[method-assign]
    torch.tensor = tensor


def _let_adamw_take_the_cpu() -> None:
    """Turn off the fused AdamW that VAR asks for; torch 2.1 has it on GPUs only."""
    import torch

    original = torch.optim.AdamW.__init__
    with contextlib.suppress(RuntimeError):
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], fused=True)
        return

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **{**kwargs, "fused": None})

    torch.optim.AdamW.__init__ = __init__  # type: ignore[method-assign]


FIX = Fix(
    "cpu-var",
    breaks="VAR's files compute on the GPU even in CPU mode, and the ranks of a CPU run do not form a process group",
    does="VAR's files find no GPU and keep their tensors on the CPU; ranks that torchrun starts form a group with gloo",
    needed=on_cpu,
    apply=_apply,
)
