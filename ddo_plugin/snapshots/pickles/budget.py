"""Builds a network without memory first. Its constructor's arguments come from an untrusted file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ddo_plugin.base.limits import advice, raised

_TIMES, _SPARE = 2, 4 << 20  # a file in half precision holds half of what the constructor creates
_SPARE_CALLS = 100_000  # iDDPMPrecond alone needs about ten thousand for its noise levels
_CALLS_FOR_EACH_TENSOR = 100
_READ = {Tensor.item: 1.0, Tensor.__float__: 1.0, Tensor.__int__: 1, Tensor.__bool__: True, Tensor.__index__: 1}


class TooBigError(Exception):
    """The constructor would create a much larger network than the file holds."""

    def __init__(self, detail: str = "") -> None:
        problem = f"its constructor arguments ask for a much larger network than the file holds{detail}"
        super().__init__(f"{problem}; {advice()}")


def build(construct: Callable[[], nn.Module], held: Iterable[Tensor]) -> nn.Module:
    """Return what `construct` returns if that has at most twice the bytes of the tensors that the file holds.

    Tensors on torch's `meta` device have a shape and no memory, so that any size can be measured.
    """
    held = list(held)
    room = raised(_TIMES * sum(tensor.nbytes for tensor in held) + _SPARE)
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _Measured(room, len(held)):
        measured = construct()
    if sum(tensor.nbytes for tensor in itertools.chain(measured.parameters(), measured.buffers())) > room:
        raise TooBigError
    return construct()


class _Measured(TorchFunctionMode):
    """A block in which a bounded number of calls may return tensors of a bounded size. A number that is read is 1."""

    def __init__(self, room: int, tensors: int) -> None:
        super().__init__()
        self.room = room
        self.calls = raised(_CALLS_FOR_EACH_TENSOR * tensors + _SPARE_CALLS)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls -= 1
        result = _READ[func] if func in _READ else func(*args, **(kwargs or {}))
        if self.calls < 0 or (isinstance(result, Tensor) and result.nbytes > self.room):
            raise TooBigError
        return result
