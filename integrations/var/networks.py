"""VAR's networks: plain weights as published, the target that they fill, and its frozen copy."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddo_integrations.var.formats import depth, network_of, read_tensors
from ddo_plugin import Reference, UserError, atomic_write, check_finite, local_file, sha256_file

WIDTH, SQUARES = 64, 12  # upstream: the width of a block for each block, and the width² weights of a block at least
MOST_SCALES = 64
MASK = "attn_bias_for_masking"  # holds −∞ where attention is not allowed


@dataclass(frozen=True)
class Weights:
    """A state dict of VAR, and what its tensors reveal of the network."""

    state: Mapping[str, Tensor]
    classes: int
    sides: tuple[int, ...]  # --pn: tokens a side of each scale
    vocabulary: int
    depth: int
    shared_modulation: bool  # --saln
    normalised_attention: bool  # --anorm

    @property
    def tokens(self) -> int:
        """The number of tokens of all scales together."""
        return sum(side * side for side in self.sides)


def load_reference(source: str, sha256: str | None, flag: str) -> Reference:
    """Load the weights at a path or URL; upstream builds the networks that they fill."""
    path = local_file(source, sha256=sha256)
    return Reference(None, source, sha256_file(path), read_weights(path, flag))


def read_weights(path: Path, flag: str) -> Weights:
    """Read weights from a file of tensors without running any of its content; tensors are mapped, not copied."""
    state = read_tensors(path, flag)
    weights = network_of(state)
    if weights is None:
        raise UserError(f"{flag}={path} holds no network of VAR; pass a file such as var_d16.pth")
    if weights.keys() != state.keys():
        raise UserError(f"{flag}={path} does not hold plain weights; extract them with `ddo convert {path} var.pth`")
    _check_shapes(weights, f"{flag}={path}")
    check_finite({name: tensor for name, tensor in weights.items() if name != MASK}, path)
    return Weights(
        weights,
        classes=len(weights["class_emb.weight"]) - 1,
        sides=tuple(math.isqrt(int(count)) for count in weights["lvl_1L"].flatten().bincount()),
        vocabulary=len(weights["head.weight"]),
        depth=depth(weights),
        shared_modulation="shared_ada_lin.1.weight" in weights,
        normalised_attention="blocks.0.attn.scale_mul_1H11" in weights,
    )


def _check_shapes(weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that tell of a network larger than themselves, before upstream builds it."""
    blocks, width = depth(weights), WIDTH * depth(weights)
    levels, tokens = weights["lvl_1L"], weights["lvl_1L"].numel()
    fits = (
        levels.dtype == torch.int64
        and tokens > 0
        and 0 <= int(levels.min()) <= int(levels.max()) < MOST_SCALES
        and all(0 < count == math.isqrt(count) ** 2 for count in levels.flatten().bincount().tolist())
        and MASK in weights
        and weights[MASK].numel() == tokens**2
        and all(weights[name].shape[1:] == (width,) for name in ("class_emb.weight", "head.weight"))
        and sum(tensor.numel() for tensor in weights.values()) > blocks * SQUARES * width**2
    )
    if not fits:
        raise UserError(
            f"{source} does not hold a network of VAR: the shapes of its tensors do not fit {blocks} blocks of width "
            f"{width}; pass a file such as var_d16.pth"
        )


def fill(var: Any, reference: Reference) -> None:
    """Load all of the reference's weights into upstream's network."""
    try:
        var.load_state_dict(reference.info.state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{reference.source} does not fill the network that upstream builds: {reason}") from None


def write(var: Any, folder: Path, step: int) -> Path:
    """Write the network after `step` optimizer steps, in the format that upstream publishes."""
    path = folder / f"var_d{var.depth}-ddo-{step:04d}.pth"
    with atomic_write(path) as file:
        torch.save({name: tensor.cpu() for name, tensor in var.state_dict().items()}, file)
    return path


def plain(network: Any) -> Any:
    """Return the module itself if torch.compile wrapped it."""
    return getattr(network, "_orig_mod", network)


def make_exact(var: Any) -> None:
    """Turn off upstream's label dropout and drop path, which would change the likelihood of a sample."""
    var.cond_drop_rate = 0.0
    for module in var.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0


def frozen_copy(var: Any) -> nn.Module:
    """Return a copy as the reference. Shared parts, such as the image tokenizer, are not copied.

    It is only run without gradients. Its weights still require them, because autocast keeps converted weights for
    further use only then; sampling uses each weight ten times.
    """
    shared = [*var.vae_proxy, *var.vae_quant_proxy, var.rng]
    reference: nn.Module = copy.deepcopy(var, {id(part): part for part in shared})
    return reference.eval()
