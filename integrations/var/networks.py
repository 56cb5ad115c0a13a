"""VAR's networks: plain weights as they are published, the target that they fill, and its frozen copy."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddo_plugin.download import local_file
from ddo_plugin.errors import UserError
from ddo_plugin.files import atomic_write, sha256_file
from ddo_plugin.records import Reference

BLOCK = re.compile(r"blocks\.(\d+)\.")
NATIVE = ("trainer", "epoch")  # what a training checkpoint of upstream's holds


@dataclass(frozen=True)
class Weights:
    """A state dict of VAR, and what its tensors say of the network."""

    state: Mapping[str, Tensor]
    classes: int
    tokens: int  # of all scales together
    vocabulary: int
    depth: int
    shared_modulation: bool  # --saln
    normalised_attention: bool  # --anorm


def load_reference(source: str, sha256: str | None, flag: str) -> Reference:
    """The weights at a path or URL; the networks that they fill are upstream's to build."""
    path = local_file(source, sha256=sha256)
    return Reference(None, source, sha256_file(path), read_weights(path, flag))


def read_weights(path: Path, flag: str) -> Weights:
    """Weights from a file of tensors; nothing of it is run, and nothing is copied into memory before it is used."""
    state = read_tensors(path, flag)
    if isinstance(state, dict) and all(name in state for name in NATIVE):
        raise UserError(
            f"{flag}={path} is a training checkpoint, not a network; `ddo convert {path} var.pth` takes the network out"
        )
    try:
        return Weights(
            state,
            classes=len(state["class_emb.weight"]) - 1,
            tokens=state["pos_1LC"].shape[1],
            vocabulary=len(state["head.weight"]),
            depth=len({found.group(1) for name in state if (found := BLOCK.match(name))}),
            shared_modulation="shared_ada_lin.1.weight" in state,
            normalised_attention="blocks.0.attn.scale_mul_1H11" in state,
        )
    except (KeyError, TypeError, AttributeError, IndexError):
        raise UserError(f"{flag}={path} holds no network of VAR; give a file such as var_d16.pth") from None


def read_tensors(path: Path, flag: str) -> Any:
    """What `torch.save` wrote, tensors and plain values alone; memory-mapped where the file's format allows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:  # whose text advises to run the file's code
        raise UserError(
            f"{flag}={path} cannot be read as a file of tensors: it is none, or holds more than them"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{flag}={path} cannot be read as a file of tensors ({reason}); is it whole?") from None


def write(var: Any, folder: Path, step: int) -> Path:
    """The network as upstream publishes its own, after `step` optimizer steps."""
    path = folder / f"var_d{var.depth}-ddo-{step:04d}.pth"
    with atomic_write(path) as file:
        torch.save(var.state_dict(), file)
    return path


def plain(network: Any) -> Any:
    """The module itself where torch.compile wrapped it."""
    return getattr(network, "_orig_mod", network)


def make_exact(var: Any) -> None:
    """No label is dropped but by us, and no path at all: both would change what the network says of a sample."""
    var.cond_drop_rate = 0.0
    for module in var.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0


def frozen_copy(var: Any) -> nn.Module:
    """The network as a reference. What it shares with the target, the image tokeniser above all, is not copied."""
    shared = [*var.vae_proxy, *var.vae_quant_proxy, var.rng]
    reference: nn.Module = copy.deepcopy(var, {id(part): part for part in shared})
    return reference.eval().requires_grad_(False)
