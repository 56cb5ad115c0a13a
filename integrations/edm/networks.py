"""EDM's networks: the reference, read without running its file, and the target that starts as its copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ddo_plugin import finetuning
from ddo_plugin.dnnlib import construct_class_by_name
from ddo_plugin.download import is_url, local_file
from ddo_plugin.errors import UserError
from ddo_plugin.likelihood.diffusion import Denoiser
from ddo_plugin.records import Reference
from ddo_plugin.reference import freeze
from ddo_plugin.snapshots import network

EXACT = {"dropout": 0, "use_fp16": False}  # what changes θ's outputs is out, and the loss needs fp32's digits
TRUST_OPTION = "--ddo-trust"


def load_reference(source: str, options: Mapping[str, Any]) -> Reference:
    """The network of a snapshot, without dropout, in fp32."""
    trust, sha256 = options["ddo_trust"], options["ddo_sha256"]
    if trust and is_url(source) and sha256 is None:
        raise UserError(f"{TRUST_OPTION} runs code from {source}; say what it must be with --ddo-sha256=HEX")
    path = local_file(source, sha256=sha256)
    loaded = network.load(path, trust=trust, overrides=EXACT, trust_option=TRUST_OPTION)
    return freeze(loaded.module.to(torch.float32), source, path, loaded.info)


def target_settings(reference: Reference) -> dict[str, Any]:
    """What `start` builds the target from: the reference's own constructor arguments, without dropout, in fp32."""
    interface = ("img_resolution", "img_channels", "label_dim")  # the native loop passes these itself
    own = {name: value for name, value in reference.info.init_kwargs.items() if name not in interface}
    return {"preconditioning": reference.info.class_name, **own, **EXACT}


def start(preconditioning: str, **settings: Any) -> nn.Module:
    """The target as the native loop asks for it: upstream's class, filled from the reference to the last tensor."""
    target: nn.Module = construct_class_by_name(class_name=f"training.networks.{preconditioning}", **settings)
    target.load_state_dict(finetuning.active("edm").reference.network.state_dict())
    return target


def denoiser(net: nn.Module, labels: torch.Tensor | None, augment_labels: torch.Tensor | None = None) -> Denoiser:
    """A network with its conditions bound."""
    if augment_labels is None:
        return lambda noisy, sigma: net(noisy, sigma, labels)
    return lambda noisy, sigma: net(noisy, sigma, labels, augment_labels=augment_labels)
