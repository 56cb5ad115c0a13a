"""Conversion between VAR's two formats: training checkpoints and the plain weights that upstream publishes."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddo_integrations.var.formats import depth, is_native, network_of, read_tensors
from ddo_integrations.var.states import FOUND_BY_UPSTREAM
from ddo_plugin import FileKind, UserError, atomic_write, kind_of

REST = {"vae_local", "var_opt", "config"}  # the rest of a training checkpoint
NAMED_BY_DEPTH = re.compile(r"var_d(\d+)\.pth")


def convert(source: Path, out: Path, like: Path | None) -> str | None:
    """Write `source` in the other format. Return a line about the result, or None if `source` is not a file of VAR."""
    if kind_of(source) not in (FileKind.CHECKPOINT, FileKind.LEGACY_CHECKPOINT):
        return None
    state = read_tensors(source, "SOURCE")
    weights = network_of(state)
    if weights is None:
        return None
    if like is not None:
        return _write_native(weights, source, out, like)
    if not is_native(state) and weights.keys() == state.keys():
        raise UserError(f"{source} holds plain weights already; to write a training checkpoint, add --like=CHECKPOINT")
    return _write_plain(weights, out)


def _write_plain(weights: Mapping[str, Tensor], out: Path) -> str:
    check_name(out, weights)
    _save(weights, out)
    return f"{out}: {described(weights)}"


def check_name(out: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse a name for plain weights that upstream would misread."""
    if fnmatch.fnmatch(out.name, FOUND_BY_UPSTREAM):
        raise UserError(
            f"{out.name}: upstream's trainer would resume from this name and fail on plain weights; name it var.pth"
        )
    named = NAMED_BY_DEPTH.fullmatch(out.name)
    if named and int(named.group(1)) != depth(weights):
        raise UserError(
            f"{out.name}: the name means depth {named.group(1)} to upstream, but the network has {depth(weights)} "
            f"blocks; name it var_d{depth(weights)}.pth"
        )


def _write_native(weights: Mapping[str, Tensor], source: Path, out: Path, like: Path) -> str:
    rest = read_tensors(like, "--like")
    if not is_native(rest) or not _is_complete(rest["trainer"]):
        raise UserError(
            f"--like={like} is not a training checkpoint of unmodified VAR (those of a DDO round have no image "
            "tokenizer); pass an ar-ckpt-*.pth of the same network"
        )
    _check_same(weights, network_of(rest) or {}, source, like)
    _save({**rest, "epoch": 0, "iter": 0, "trainer": _begun_anew(rest["trainer"], weights)}, out)
    return f"{out}: a training checkpoint at epoch 0 with an empty optimizer state, of {described(weights)}"


def _is_complete(trainer: Mapping[str, Any]) -> bool:
    """Return whether a trainer's state has all parts that upstream's trainer loads."""
    optimizer = trainer["var_opt"].get("optimizer") if isinstance(trainer.get("var_opt"), dict) else None
    return all(isinstance(trainer.get(part), dict) for part in REST) and isinstance(optimizer, dict)


def _begun_anew(trainer: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the trainer's state at the start. The old moments belong to other weights; the groups stay as they are."""
    optimizer = {**trainer["var_opt"]["optimizer"], "state": {}}
    config = {**trainer["config"], "prog_it": 0, "last_prog_si": -1, "first_prog": True}
    own = {"var_wo_ddp": dict(weights), "vae_local": trainer["vae_local"], "config": config}
    return {**own, "var_opt": {**trainer["var_opt"], "optimizer": optimizer}}


def _check_same(weights: Mapping[str, Tensor], other: Mapping[str, Tensor], source: Path, like: Path) -> None:
    if depth(weights) != depth(other):
        raise UserError(
            f"{source} has depth {depth(weights)}, but --like={like} has {depth(other)}; pass one of this network"
        )
    for name in sorted(weights.keys() | other.keys()):
        shapes = [tuple(state[name].shape) if name in state else "missing" for state in (weights, other)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{source} and --like={like} are different networks: {name} is {shapes[0]} and {shapes[1]}")


def _save(state: Any, out: Path) -> None:
    with atomic_write(out, replace=False) as file:
        torch.save(state, file)


def described(weights: Mapping[str, Tensor]) -> str:
    """Return the depth and the size of a network as text."""
    parameters = sum(
        tensor.numel() for name, tensor in weights.items() if name not in ("lvl_1L", "attn_bias_for_masking")
    )
    return f"a VAR of depth {depth(weights)}, {parameters / 1e6:.1f} million parameters"
