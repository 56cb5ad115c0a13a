"""An evaluation of a denoiser, in the way that every solver needs it."""

from __future__ import annotations

import torch
from torch import Tensor

from ddo_plugin.objective.diffusion import Denoiser


def estimate_clean(denoise: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    """Return D(x; σ) in the dtype of x. The network itself runs on float32."""
    sigmas = sigma.to(x.device, torch.float32).expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
    return denoise(x.to(torch.float32), sigmas).to(x.dtype)
