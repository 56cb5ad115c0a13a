"""A limit on the memory and the calls of a constructor. Its arguments come from an untrusted file."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = (torch.rand, torch.randn, torch.zeros, torch.ones, torch.empty, torch.full, torch.eye, torch.arange)
_SPARE_NUMBERS = 1 << 20
_SPARE_CALLS = 100_000  # iDDPMPrecond alone needs about ten thousand for its noise levels
_CALLS_FOR_EACH_TENSOR = 100


class TooBigError(Exception):
    """The constructor would create a much larger network than the file holds."""


class Budget(TorchFunctionMode):
    """A block in which tensors of up to twice the numbers in a file may be created, in a bounded number of calls."""

    def __init__(self, numbers: int, tensors: int) -> None:
        super().__init__()
        self.numbers = 2 * numbers + _SPARE_NUMBERS
        self.calls = _CALLS_FOR_EACH_TENSOR * tensors + _SPARE_CALLS

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls -= 1
        if func in _FACTORIES:
            self.numbers -= _numbers(args, kwargs or {})
        if self.calls < 0 or self.numbers < 0:
            raise TooBigError("its constructor arguments ask for a much larger network than the file holds")
        return func(*args, **(kwargs or {}))


def _numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return how many numbers a call creates, as `randn(2, 3)`, `randn([2, 3])` or `zeros(size=[2, 3])`."""
    sizes = kwargs.get("size", args)
    flat = [size for item in sizes for size in (item if isinstance(item, list | tuple) else [item])]
    return math.prod(abs(int(size)) for size in flat if isinstance(size, int | float) and not isinstance(size, bool))
