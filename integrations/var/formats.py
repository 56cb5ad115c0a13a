"""VAR's files: tensors read without running anything, told apart by what they hold."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddo_plugin import UserError

BLOCK = re.compile(r"blocks\.(\d+)\.")
WRAPPERS = ("_orig_mod.", "module.")  # what torch.compile and DistributedDataParallel put before every name
LANDMARKS = {"class_emb.weight", "word_embed.weight", "pos_1LC", "head.weight", "lvl_1L"}


def read_tensors(path: Path, flag: str) -> Any:
    """What `torch.save` wrote, tensors and plain values alone; memory-mapped where the file's format allows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that it then refuses
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:  # whose text advises to run the file's code
        raise UserError(
            f"{flag}={path} cannot be read as a file of tensors: it is none, or holds more than them"
        ) from None
    except Exception as error:  # what is no such file at all may raise anything
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{flag}={path} cannot be read as a file of tensors ({reason}); fetch it anew") from None


def is_native(state: Any) -> bool:
    """Whether upstream's trainer wrote it."""
    return isinstance(state, dict) and isinstance(state.get("trainer"), dict) and "var_wo_ddp" in state["trainer"]


def network_of(state: Any) -> dict[str, Tensor] | None:
    """The weights of VAR alone, under the names that upstream's class has for them."""
    held = state["trainer"]["var_wo_ddp"] if is_native(state) else state
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        return None
    weights = {_bare(str(name)): tensor for name, tensor in held.items()}
    return weights if len(weights) == len(held) and weights.keys() >= LANDMARKS else None


def depth(weights: Mapping[str, Tensor]) -> int:
    """The number of blocks."""
    return len({found.group(1) for name in weights if (found := BLOCK.match(name))})


def _bare(name: str) -> str:
    while (bare := name.removeprefix(WRAPPERS[0]).removeprefix(WRAPPERS[1])) != name:
        name = bare
    return name
