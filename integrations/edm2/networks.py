"""EDM2's networks: the reference at a fixed point of the forced normalisation, and the target that starts there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ddo_integrations.nvlabs.dnnlib import construct_class_by_name
from ddo_plugin import Reference, UserError, load_reference
from ddo_plugin.checkouts import compat
from ddo_plugin.finetuning import session as finetuning

NORMALISED = "MPConv"  # upstream's layer whose weights every forward in train() normalises in place
ROUNDS, ALL_AT_ONCE = 256, 2


def load_settled(source: str, options: Mapping[str, Any]) -> Reference:
    """The network of a snapshot, in fp32, with weights that a forward in train() leaves as they are."""
    reference = load_reference(source, options)
    if reference.info.class_name != "Precond":
        raise UserError(f"--ddo={source} is a {reference.info.class_name}, not a network of EDM2; use its own checkout")
    settle(reference.network, compat.device())
    return reference


def settle(network: nn.Module, device: torch.device) -> None:
    """Apply the forced normalisation until it changes nothing, with the arithmetic of the training device.

    Otherwise the target moves at its first forward (upstream's summary of the network makes the first one) and the
    reference, in eval(), does not: their log-ratio would not be 0.
    """
    for part in network.modules():
        if type(part).__name__ == NORMALISED:
            normalise = sys.modules[type(part).__module__].normalize
            weight: Any = part.weight
            settled = _fixed_point(weight.data.to(device), normalise)
            if not normalise(settled).equal(settled):
                print(
                    "ddo: a weight still moves under the forced normalisation; r begins near 0, not at it", flush=True
                )
            weight.data.copy_(settled)


def _fixed_point(weight: Tensor, normalise: Callable[[Tensor], Tensor]) -> Tensor:
    """A weight of unit norm that `normalise` returns bit for bit."""
    for count in range(ROUNDS):
        normalised = normalise(weight)
        if normalised.equal(weight):
            break
        weight = normalised if count < ALL_AT_ONCE else torch.where(_some(weight, count), normalised, weight)
    return weight


def _some(weight: Tensor, count: int) -> Tensor:
    """Fewer and fewer entries: all at once, the last digit of a norm can swing about 1 for ever."""
    apart = 2 + count // 8
    return (torch.arange(weight.numel(), device=weight.device) % apart == count % apart).reshape(weight.shape)


def start(**settings: Any) -> nn.Module:
    """The target as the native loop asks for it, filled from the reference: averages are made of it afterwards."""
    target: nn.Module = construct_class_by_name(class_name="training.networks_edm2.Precond", **settings)
    target.load_state_dict(finetuning.active("edm2").reference.network.state_dict())
    return target
