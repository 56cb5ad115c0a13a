"""The device and the precision of metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ddo_plugin.checkouts.compat import cpu


def device() -> torch.device:
    """Return the GPU, or the CPU if there is no GPU or `DDO_DEVICE` asks for it."""
    return torch.device("cpu" if cpu.chosen() else "cuda")


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in full float32. GPUs since Ampere otherwise round convolutions to TF32, which changes distances."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before
