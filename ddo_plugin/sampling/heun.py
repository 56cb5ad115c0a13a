"""EDM's deterministic 2nd-order sampler (Karras et al. 2022, Algorithm 1) for any denoiser."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ddo_plugin.likelihood.diffusion import Denoiser


def noise_steps(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """[steps + 1] noise levels from σ_max down to σ_min, then 0 (Eq. 5 there), in float64."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(top + ramp * (bottom - top)) ** rho, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def sample(denoise: Denoiser, latents: Tensor, sigmas: Tensor) -> Tensor:
    """Solve the probability-flow ODE from unit-variance latents; the state is kept in float64."""

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        """dx/dσ = (x − D(x; σ)) / σ."""
        levels = sigma.to(x.device, torch.float32).expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
        return (x - denoise(x.to(torch.float32), levels).to(torch.float64)) / sigma

    x = latents.to(torch.float64) * sigmas[0]
    for here, there in pairwise(sigmas):
        first = slope(x, here)
        euler = x + (there - here) * first
        x = x + (there - here) * (first + slope(euler, there)) / 2 if there > 0 else euler
    return x
