"""EDM2's networks: the reference at a fixed point of the forced normalisation, and the target that starts there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ddo_integrations.nvlabs.dnnlib import construct_class_by_name
from ddo_plugin import Reference, Upstream, UserError, current_session, load_reference, upstream_device

NORMALISED = "MPConv"  # upstream's layer; every forward pass in train() normalises its weights in place
ROUNDS, ALL_AT_ONCE = 256, 2
Normalise = Callable[[Tensor], Tensor]


def load_settled(source: str, options: Mapping[str, Any], upstream: Upstream) -> Reference:
    """Load the network of a snapshot in fp32, with weights that a forward in train() does not change."""
    reference = load_reference(source, options, upstream)
    if reference.info.class_name != "Precond":
        raise UserError(
            f"--ddo={source} is a {reference.info.class_name}, not an EDM2 network; use its own upstream's checkout"
        )
    settle(reference.network, upstream_device())
    return reference


def settle(network: nn.Module, device: torch.device) -> None:
    """Apply the forced normalisation until it changes nothing, with the arithmetic of the training device.

    Otherwise the first forward changes the target (upstream's summary of the network makes one), but not the
    reference, which is in eval(): their log-ratio would not be 0.
    """
    for _, weight, normalised in _forced(network):
        settled = _fixed_point(weight.data.to(device), normalised)
        if not normalised(settled).equal(settled):
            print(
                "ddo: a weight still changes under the forced normalization; log-ratios start near 0, not at 0",
                flush=True,
            )
        weight.data.copy_(settled)


@torch.no_grad()
def normalise(network: nn.Module) -> None:
    """Apply the forced normalisation once, as a forward in train() does before it uses a weight."""
    for _, weight, normalised in _forced(network):
        weight.copy_(normalised(weight))


def normaliser(network: nn.Module) -> Callable[[str, Tensor], Tensor]:
    """Return a function that normalises a float64 tensor of this name if upstream does."""
    forced = {name: normalised for name, _, normalised in _forced(network)}

    def prepare(name: str, tensor: Tensor) -> Tensor:
        return forced[name](tensor.float()).double() if name in forced else tensor

    return prepare


def _forced(network: nn.Module) -> Iterator[tuple[str, Any, Normalise]]:
    """Return the weights that upstream normalises, each with its name and upstream's function."""
    for name, part in network.named_modules():
        if type(part).__name__ == NORMALISED:
            yield f"{name}.weight", part.weight, sys.modules[type(part).__module__].normalize


def _fixed_point(weight: Tensor, normalised: Normalise) -> Tensor:
    """Return a weight of unit norm that `normalised` returns bit for bit."""
    for count in range(ROUNDS):
        once_more = normalised(weight)
        if once_more.equal(weight):
            break
        weight = once_more if count < ALL_AT_ONCE else torch.where(_some(weight, count), once_more, weight)
    return weight


def _some(weight: Tensor, count: int) -> Tensor:
    """Choose fewer and fewer entries; if all change at once, the last digit of a norm can oscillate forever."""
    apart = 2 + count // 8
    return (torch.arange(weight.numel(), device=weight.device) % apart == count % apart).reshape(weight.shape)


def start(**settings: Any) -> nn.Module:
    """Build the target as the native loop asks for it, with the reference's weights; averages are copied from it."""
    target: nn.Module = construct_class_by_name(class_name="training.networks_edm2.Precond", **settings)
    target.load_state_dict(current_session("edm2").reference.network.state_dict())
    return target
