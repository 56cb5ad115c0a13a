"""Merging two networks of VAR into files of plain weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ddo_integrations.var.convert import check_name, described
from ddo_integrations.var.networks import MASK, read_weights
from ddo_plugin import interpolate

BUFFERS = (MASK, "lvl_1L")


def merge(a: Path, b: Path, outs: Mapping[Path, float]) -> str:
    """Write the merged weights, in the format that upstream publishes."""
    first, second = read_weights(a, "A").state, read_weights(b, "B").state
    for out, w in outs.items():
        check_name(out, first)
        with out.open("wb") as file:
            torch.save(interpolate(first, second, w, fixed=BUFFERS), file)
    return described(first)
