"""Counts what a forward pass computes and keeps. Nothing is timed, so a network on torch's meta device will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Forward:
    """A forward pass; `operations` and `kept` are for one sample."""

    operations: float
    kept: float  # bytes that stay for the backward pass
    kept_once: float  # the same, whatever the number of samples


def count_operations(call: Callable[[], Any]) -> float:
    """Return the floating-point operations of matrix products, convolutions and attention in a call."""
    # torch counts fused attention on a GPU only; its plain form consists of matrix products
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        call()
    return float(counter.get_total_flops())


def count_forward(network: nn.Module, forward: Callable[[int], Any]) -> Forward:
    """Count `forward(batch)`, which runs the network on this number of samples."""
    one, two = _kept(network, lambda: forward(1)), _kept(network, lambda: forward(2))
    return Forward(count_operations(lambda: forward(1)), two - one, max(2 * one - two, 0))


def _kept(network: nn.Module, call: Callable[[], Any]) -> int:
    """Return the bytes that a call keeps for its backward pass, without the network's own weights."""
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps storages from being freed and counted again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
