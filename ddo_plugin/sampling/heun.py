"""EDM's deterministic 2nd-order sampler (Karras et al. 2022, Algorithm 1) for any denoiser."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ddo_plugin.likelihood.diffusion import Denoiser
from ddo_plugin.sampling.denoising import estimate
from ddo_plugin.sampling.noise_steps import noise_steps as noise_steps


@torch.no_grad()
def sample(denoise: Denoiser, latents: Tensor, sigmas: Tensor) -> Tensor:
    """Solve the probability-flow ODE from unit-variance latents; the state is kept in float64."""

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        """dx/dσ = (x − D(x; σ)) / σ."""
        return (x - estimate(denoise, x, sigma)) / sigma

    x = latents.to(torch.float64) * sigmas[0]
    for here, there in pairwise(sigmas):
        first = slope(x, here)
        euler = x + (there - here) * first
        x = x + (there - here) * (first + slope(euler, there)) / 2 if there > 0 else euler
    return x
