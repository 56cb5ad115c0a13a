"""CPU mode: upstream code without a GPU. Chosen by DDO_DEVICE=cpu, or if torch finds no GPU.

Upstreams name the GPU in three ways:
- calls into torch.cuda and torch.distributed, which are replaced by what a CPU has;
- function defaults `device=torch.device('cuda')`. They exist only once upstream is imported, so they are replaced when
  a command of it starts;
- calls with an explicit GPU, such as `torch.randint`.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.ranks import is_first
from ddo_plugin.checkouts.compat import mixed_precision, ownership
from ddo_plugin.hooks.types import Fix

VARIABLE = "DDO_DEVICE"


def chosen() -> bool:
    """Return whether this process is to run upstream on the CPU."""
    device = os.environ.get(VARIABLE, "")
    if device not in ("", "cpu", "cuda"):
        raise UserError(f"{VARIABLE}={device}: unknown device; set it to cpu or cuda, or unset it")
    if device:
        return device == "cpu"
    import torch

    return not torch.cuda.is_available()


def adjust_upstream() -> None:
    """Replace the GPU by the CPU in what upstream has defined by now: function defaults, the statistics' device."""
    for module in ownership.modules():
        for value in list(vars(module).values()):
            for function in _functions(value):
                _default_to_cpu(function)
    statistics: Any = sys.modules.get("torch_utils.training_stats")
    if statistics is not None and not hasattr(statistics.init_multiprocessing, "__wrapped__"):
        statistics.init_multiprocessing = _synchronising_on_cpu(statistics.init_multiprocessing)


def _apply() -> None:
    _stub_cuda()
    _replace_nccl()
    _let_ddp_take_the_cpu()
    _draw_seeds_on_the_cpu()
    _adjust_when_a_command_starts()
    mixed_precision.move_to_the_cpu()
    adjust_upstream()


def _stub_cuda() -> None:
    import torch

    cuda: Any = torch.cuda
    cuda.set_device = cuda.reset_peak_memory_stats = lambda *_: None
    cuda.max_memory_allocated = cuda.max_memory_reserved = lambda *_: 0


def _replace_nccl() -> None:
    import torch.distributed

    original = torch.distributed.init_process_group

    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        if backend == "nccl":
            adjust_upstream()  # for a user's own script that is not a click command
            announce_cpu()
        original("gloo" if backend == "nccl" else backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group


def announce_cpu() -> None:
    """Print on the first rank that upstream runs on the CPU, and why."""
    if is_first():
        print(f"ddo: running on the CPU ({_reason()})", file=sys.stderr)


def _reason() -> str:
    return f"{VARIABLE}=cpu" if os.environ.get(VARIABLE) else f"torch finds no GPU; {VARIABLE}=cuda forbids this"


def _let_ddp_take_the_cpu() -> None:
    from torch.nn.parallel import DistributedDataParallel

    original = DistributedDataParallel.__init__

    @functools.wraps(original)
    def __init__(self: Any, module: Any, device_ids: Any = None, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            device_ids = None
        original(self, module, device_ids, *args, **kwargs)

    DistributedDataParallel.__init__ = __init__  # type: ignore[method-assign]


def _draw_seeds_on_the_cpu() -> None:
    """Draw the random seed of EDM's train.py on the CPU. Without --seed, train.py draws it on the GPU."""
    import torch

    original = torch.randint

    @functools.wraps(original)
    def randint(*args: Any, **kwargs: Any) -> Any:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = torch.device("cpu")
        return original(*args, **kwargs)

    torch.randint = randint


def _adjust_when_a_command_starts() -> None:
    """Adjust upstream when a click command starts: all is imported then, and no default has been used yet."""
    original = click.Command.main

    @functools.wraps(original)
    def main(self: click.Command, *args: Any, **kwargs: Any) -> Any:
        adjust_upstream()
        return original(self, *args, **kwargs)

    click.Command.main = main  # type: ignore[method-assign]


def _functions(value: object) -> Iterator[FunctionType]:
    """Yield a function, the functions that decorators wrapped in it, and those of click commands and groups."""
    if isinstance(value, click.Group):
        for command in value.commands.values():
            yield from _functions(command)
    if isinstance(value, click.Command):
        value = value.callback
    while isinstance(value, FunctionType):
        yield value
        value = getattr(value, "__wrapped__", None)


def _default_to_cpu(function: FunctionType) -> None:
    import torch

    cpu = torch.device("cpu")
    if function.__defaults__ and any(map(_is_cuda, function.__defaults__)):
        function.__defaults__ = tuple(cpu if _is_cuda(value) else value for value in function.__defaults__)
    if function.__kwdefaults__:
        function.__kwdefaults__.update({name: cpu for name, v in function.__kwdefaults__.items() if _is_cuda(v)})


def _is_cuda(value: object) -> bool:
    import torch

    return isinstance(value, torch.device) and value.type == "cuda"


def _synchronising_on_cpu(original: Any) -> Any:
    import torch

    @functools.wraps(original)
    def init_multiprocessing(rank: int, sync_device: Any) -> None:
        original(rank=rank, sync_device=None if sync_device is None else torch.device("cpu"))

    return init_multiprocessing


FIX = Fix(
    "cpu",
    breaks="nothing runs: upstream requires a GPU",
    does="upstream runs on the CPU: gloo replaces nccl, default devices and torch.cuda calls are adjusted",
    needed=chosen,
    apply=_apply,
    to_train=True,
)
