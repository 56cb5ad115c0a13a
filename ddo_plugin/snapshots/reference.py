"""Loads a snapshot as the frozen reference of a round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddo_plugin.base.download import is_url, local_file
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.hooks.types import Reference, Upstream
from ddo_plugin.snapshots.pickles import network

TRUST_OPTION = "--ddo-trust"
EXACT = {"dropout": 0}  # nothing may change θ's outputs at random


def freeze_reference(network: nn.Module, source: str, file: Path, info: Any = None) -> Reference:
    """Return a network as a reference: `eval()`, no gradients, identified by the SHA-256 of its file."""
    return Reference(network.eval().requires_grad_(False), source, sha256_file(file), info)


def load_reference(source: str, options: Mapping[str, Any], upstream: Upstream) -> Reference:
    """Load a snapshot by path or URL, without dropout and in fp32. `options` are those of `pickle_options`.

    Only the network classes that `upstream` declares are built.
    """
    reference = _load(source, options, upstream, EXACT)
    reference.network.to(torch.float32)
    return reference


def load_as_stored(source: str, options: Mapping[str, Any], upstream: Upstream) -> Reference:
    """Load a snapshot like `load_reference`, but as it is stored: as upstream's scripts sample it."""
    return _load(source, options, upstream, {})


def _load(source: str, options: Mapping[str, Any], upstream: Upstream, overrides: Mapping[str, Any]) -> Reference:
    trust, sha256 = options["ddo_trust"], options["ddo_sha256"]
    if trust and is_url(source) and sha256 is None:
        raise UserError(f"{TRUST_OPTION} would run code from {source}; add its checksum, --ddo-sha256=HEX")
    path = local_file(source, sha256=sha256)
    loaded = network.load(
        path, trust=trust, overrides=overrides, classes=upstream.network_classes, trust_option=TRUST_OPTION
    )
    check_finite(loaded.module.state_dict(), source)
    return freeze_reference(loaded.module, source, path, loaded.info)


def check_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse weights that are not finite. A training that diverged leaves such weights."""
    for name, tensor in state.items():
        # a sum is quick to compute, and finite only if all numbers are
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise UserError(f"{source}: {name} is not finite, as after a training that diverged; use another snapshot")


def target_settings(reference: Reference) -> dict[str, Any]:
    """Return the reference's constructor arguments, without dropout. `use_fp16` is always among them."""
    interface = ("img_resolution", "img_channels", "label_dim")  # upstream's training loop passes these itself
    own = {name: value for name, value in reference.info.init_kwargs.items() if name not in interface}
    return {"use_fp16": bool(getattr(reference.network, "use_fp16", False)), **own, **EXACT}
