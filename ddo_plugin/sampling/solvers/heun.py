"""EDM's second-order sampler (Karras et al. 2022, Algorithms 1 and 2) for any denoiser. Names follow the paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ddo_plugin.objective.diffusion import Denoiser
from ddo_plugin.sampling.solvers.denoising import estimate_clean
from ddo_plugin.sampling.solvers.noise_levels import check_levels

GAMMA_MAX = math.sqrt(2) - 1


@dataclass(frozen=True)
class Churn:
    """Fresh noise at the steps with σ in [low, high]: S_churn, S_min, S_max and S_noise of Algorithm 2."""

    strength: float
    low: float = 0.0
    high: float = math.inf
    inflation: float = 1.0
    everywhere: bool = False  # also draw, and drop, noise at the other steps: a draw advances the random streams

    def factor(self, sigma: Tensor, steps: int) -> float:
        """Return γ, by which this step raises its noise level."""
        return min(self.strength / steps, GAMMA_MAX) if self.low <= sigma <= self.high else 0.0


@torch.no_grad()
def heun_sample(
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    *,
    churn: Churn | None = None,
    randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
    round_sigma: Callable[[Tensor], Tensor] = lambda sigma: sigma,
    second_order: bool = True,
) -> Tensor:
    """Solve the probability-flow ODE from unit-variance latents. The state has the dtype of `sigmas`.

    `round_sigma` rounds a raised noise level to the nearest level that the network supports. Without `second_order`
    this is Euler's method.
    """

    check_levels(sigmas)

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        """Return dx/dσ = (x − D(x; σ)) / σ."""
        denoised = estimate_clean(denoise, x, sigma)
        return (x - denoised) / sigma

    x, steps = latents.to(sigmas.dtype) * sigmas[0], len(sigmas) - 1
    levels = sigmas.cpu()  # to decide by: the CPU would wait for numbers on a GPU in every step
    for (sigma, sigma_next), (level, level_next) in zip(pairwise(sigmas), pairwise(levels), strict=True):
        x_hat, sigma_hat = x, sigma
        if churn:
            x_hat, sigma_hat = _add_noise(x, sigma, churn.factor(level, steps), churn, randn_like, round_sigma)
        d = slope(x_hat, sigma_hat)
        x = x_hat + (sigma_next - sigma_hat) * d
        if second_order and level_next > 0:
            d_prime = slope(x, sigma_next)
            x = x_hat + (sigma_next - sigma_hat) * (d + d_prime) / 2
    return x


def _add_noise(
    x: Tensor,
    sigma: Tensor,
    gamma: float,
    churn: Churn,
    randn_like: Callable[[Tensor], Tensor],
    round_sigma: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return x̂, the state with fresh noise, and its noise level σ̂."""
    if not gamma:
        if churn.everywhere:
            randn_like(x)
        return x, sigma
    sigma_hat = round_sigma(sigma + gamma * sigma)
    return x + (sigma_hat**2 - sigma**2).sqrt() * churn.inflation * randn_like(x), sigma_hat
