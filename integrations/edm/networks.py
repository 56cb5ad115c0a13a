"""EDM's networks: the target that starts as a copy of the reference."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ddo_integrations.nvlabs.dnnlib import construct_class_by_name
from ddo_plugin import Denoiser, current_session


def start(preconditioning: str, **settings: Any) -> nn.Module:
    """Build the target as the native loop asks for it: upstream's class, with all weights of the reference."""
    target: nn.Module = construct_class_by_name(class_name=f"training.networks.{preconditioning}", **settings)
    target.load_state_dict(current_session("edm").reference.network.state_dict())
    return target


def denoiser(net: nn.Module, labels: torch.Tensor | None, augment_labels: torch.Tensor | None = None) -> Denoiser:
    """Bind a network to its conditions, in fp32 even if it samples in half precision: the loss needs the digits."""
    augmented = {} if augment_labels is None else {"augment_labels": augment_labels}
    return lambda noisy, sigma: net(noisy, sigma, labels, force_fp32=True, **augmented)
