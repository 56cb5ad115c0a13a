"""VAR's files: reading their tensors without running code, and telling the formats apart by their contents."""

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

from ddo_plugin import UserError, check_checkpoint

BLOCK = re.compile(r"blocks\.(\d+)\.")
WRAPPERS = re.compile(r"^(?:_orig_mod\.|module\.)+")  # prefixes from torch.compile and DistributedDataParallel
LANDMARKS = {"class_emb.weight", "word_embed.weight", "pos_1LC", "head.weight", "lvl_1L"}


def read_tensors(path: Path, flag: str) -> Any:
    """Load tensors and plain values from a file of `torch.save`, memory-mapped if its format allows."""
    try:
        check_checkpoint(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that torch then refuses
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:  # its text advises to run the file's code
        raise UserError(
            f"{flag}={path} cannot be read as a file of tensors: it has another format or holds other objects"
        ) from None
    except Exception as error:  # another kind of file can raise anything
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise UserError(
            f"{flag}={path} cannot be read as a file of tensors ({reason}); "
            f"run `ddo inspect {path}` to check the file, or download it again"
        ) from None


def is_native(state: Any) -> bool:
    """Return whether upstream's trainer wrote this state."""
    return isinstance(state, dict) and isinstance(state.get("trainer"), dict) and "var_wo_ddp" in state["trainer"]


def network_of(state: Any) -> dict[str, Tensor] | None:
    """Return VAR's weights under the names of upstream's class, or None if the state holds none."""
    stored = state["trainer"]["var_wo_ddp"] if is_native(state) else state
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        return None
    weights = {_bare(str(name)): tensor for name, tensor in stored.items()}
    return weights if len(weights) == len(stored) and weights.keys() >= LANDMARKS else None


def depth(weights: Mapping[str, Tensor]) -> int:
    """Return the number of blocks."""
    return len({match.group(1) for name in weights if (match := BLOCK.match(name))})


def _bare(name: str) -> str:
    return WRAPPERS.sub("", name)
