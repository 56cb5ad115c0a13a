"""Where metrics are computed."""

from __future__ import annotations

import torch

from ddo_plugin.compat import cpu


def device() -> torch.device:
    """The GPU, if there is one and `DDO_DEVICE` does not say otherwise."""
    return torch.device("cpu" if cpu.chosen() else "cuda")
