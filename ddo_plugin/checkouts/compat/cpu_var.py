"""VAR on a CPU. It runs there by itself, alone and up to the end of its first epoch; ranks need what follows."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.compat import ownership


def stand_in(announce: Callable[[], None]) -> None:
    """Answer what VAR's files ask of a GPU; `announce` is called when such a run starts."""
    _find_no_gpu(announce)
    _keep_tensors()
    _let_adamw_take_the_cpu()


def adjust() -> None:
    """If `dist` was imported before, it has chosen its device already."""
    dist: Any = sys.modules.get("dist")
    if dist is not None and ownership.owns(vars(dist), ownership.VAR):
        vars(dist)["__device"] = "cpu"


def _find_no_gpu(announce: Callable[[], None]) -> None:
    """VAR's `dist` asks whether there is a GPU when it is imported and, first of all, where it starts its ranks."""
    import torch

    original = torch.cuda.is_available

    @functools.wraps(original)
    def is_available() -> bool:
        caller = sys._getframe(1)
        if not ownership.owns(caller.f_globals, ownership.VAR):
            return original()
        if caller.f_globals.get("__name__") == "dist" and caller.f_code.co_name == "initialize":
            announce()
            _join(caller.f_globals)
        return False

    torch.cuda.is_available = is_available


def _join(dist: MutableMapping[str, Any]) -> None:
    """Upstream starts a process group on GPUs only: on a CPU each of several ranks would train for itself."""
    import torch.distributed

    if "RANK" not in os.environ:
        return
    try:
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:  # upstream would print a RuntimeError and go on alone
        reason = " ".join(str(error).split())
        raise UserError(f"rank {os.environ['RANK']} cannot join the others: {reason}; start them by torchrun") from None
    rank = torch.distributed.get_rank()
    dist["__rank"], dist["__world_size"] = rank, torch.distributed.get_world_size()
    dist["__local_rank"] = int(os.environ.get("LOCAL_RANK", rank))
    dist["__initialized"] = True


def _keep_tensors() -> None:
    """VAR's collectives move their tensors to the GPU; its meters make theirs there."""
    import torch

    original_cuda, original_tensor = torch.Tensor.cuda, torch.tensor

    @functools.wraps(original_cuda)
    def cuda(self: Any, *args: Any, **kwargs: Any) -> Any:
        if ownership.owns(sys._getframe(1).f_globals, ownership.VAR):
            return self
        return original_cuda(self, *args, **kwargs)

    @functools.wraps(original_tensor)
    def tensor(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("device") == "cuda" and ownership.owns(sys._getframe(1).f_globals, ownership.VAR):
            kwargs["device"] = "cpu"
        return original_tensor(*args, **kwargs)

    torch.Tensor.cuda = cuda  # type: ignore[method-assign]
    torch.tensor = tensor


def _let_adamw_take_the_cpu() -> None:
    """VAR asks for the fused AdamW, which torch 2.1 has for GPUs alone."""
    import torch

    original = torch.optim.AdamW.__init__
    with contextlib.suppress(RuntimeError):
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], fused=True)
        return

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **{**kwargs, "fused": None})

    torch.optim.AdamW.__init__ = __init__  # type: ignore[method-assign]
