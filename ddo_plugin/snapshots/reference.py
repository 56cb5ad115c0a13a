"""The frozen reference: its loading from a snapshot, its freezing and its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddo_plugin.base.download import is_url, local_file
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.hooks.types import Reference
from ddo_plugin.snapshots.pickles import network

TRUST_OPTION = "--ddo-trust"
EXACT = {"dropout": 0}  # what changes θ's outputs is out; snapshots keep the precision that they are sampled in


def freeze_reference(network: nn.Module, source: str, file: Path, info: Any = None) -> Reference:
    """A network as a reference: `eval()`, no gradients, identified by the sha256 of the file it came from."""
    return Reference(network.eval().requires_grad_(False), source, sha256_file(file), info)


def load_reference(source: str, options: Mapping[str, Any]) -> Reference:
    """The network of a snapshot, a path or URL, without dropout, with fp32 weights; `options` are `pickle_options`."""
    reference = _load(source, options, EXACT)
    reference.network.to(torch.float32)
    return reference


def load_as_stored(source: str, options: Mapping[str, Any]) -> Reference:
    """The same in the precision that it was stored in, as upstream's scripts sample it."""
    return _load(source, options, {})


def _load(source: str, options: Mapping[str, Any], overrides: Mapping[str, Any]) -> Reference:
    trust, sha256 = options["ddo_trust"], options["ddo_sha256"]
    if trust and is_url(source) and sha256 is None:
        raise UserError(f"{TRUST_OPTION} runs code from {source}; say what it must be with --ddo-sha256=HEX")
    path = local_file(source, sha256=sha256)
    loaded = network.load(path, trust=trust, overrides=overrides, trust_option=TRUST_OPTION)
    check_finite(loaded.module.state_dict(), source)
    return freeze_reference(loaded.module, source, path, loaded.info)


def check_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """A training that diverged leaves networks which sample black images, or nothing, and teach nothing."""
    for name, tensor in state.items():
        # a sum is quick to make, and finite only if all are
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise UserError(f"{source}: {name} is not finite, as if its training had diverged; take another snapshot")


def target_settings(reference: Reference) -> dict[str, Any]:
    """The reference's own constructor arguments, without dropout; `use_fp16` by name, for native scripts print it."""
    interface = ("img_resolution", "img_channels", "label_dim")  # native loops pass these themselves
    own = {name: value for name, value in reference.info.init_kwargs.items() if name not in interface}
    return {"use_fp16": bool(getattr(reference.network, "use_fp16", False)), **own, **EXACT}
