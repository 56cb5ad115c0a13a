"""One question to a denoiser, as every sampler asks it."""

from __future__ import annotations

import torch
from torch import Tensor

from ddo_plugin.objective.diffusion import Denoiser


def estimate_clean(denoise: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; σ) in the type of x; networks are handed float32."""
    levels = sigma.to(x.device, torch.float32).expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
    return denoise(x.to(torch.float32), levels).to(x.dtype)
