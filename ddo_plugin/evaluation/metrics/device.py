"""Where metrics are computed, and how exactly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ddo_plugin.checkouts.compat import cpu


def device() -> torch.device:
    """The GPU, if there is one and `DDO_DEVICE` does not say otherwise."""
    return torch.device("cpu" if cpu.chosen() else "cuda")


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """float32 as it is: GPUs since Ampere else round what they convolve to TF32, ten bits, which moves a distance."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before
