"""EDM's 2nd-order sampler (Karras et al. 2022, Algorithms 1 and 2) for any denoiser."""

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

MOST = math.sqrt(2) - 1  # by which a step's noise level is raised at most


@dataclass(frozen=True)
class Churn:
    """Fresh noise at each step whose level lies in [low, high] (Algorithm 2 there: S_churn, S_min, S_max, S_noise)."""

    strength: float
    low: float = 0.0
    high: float = math.inf
    inflation: float = 1.0
    everywhere: bool = False  # noise is also drawn, and dropped, at the other steps: it moves the random streams

    def factor(self, sigma: Tensor, steps: int) -> float:
        """γ: by how much the level is raised at this step."""
        return min(self.strength / steps, MOST) if self.low <= sigma <= self.high else 0.0


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
    """Solve the probability-flow ODE from unit-variance latents; the state has the dtype of `sigmas`.

    `round_sigma` gives the level nearest to one that churning asks for that the network knows. Without `second_order`
    it is Euler's method.
    """

    check_levels(sigmas)

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        """dx/dσ = (x − D(x; σ)) / σ."""
        return (x - estimate_clean(denoise, x, sigma)) / sigma

    x, steps = latents.to(sigmas.dtype) * sigmas[0], len(sigmas) - 1
    for level, there in pairwise(sigmas):
        x, here = _raised(x, level, steps, churn, randn_like, round_sigma) if churn else (x, level)
        first = slope(x, here)
        euler = x + (there - here) * first
        x = x + (there - here) * (first + slope(euler, there)) / 2 if second_order and there > 0 else euler
    return x


def _raised(
    x: Tensor,
    level: Tensor,
    steps: int,
    churn: Churn,
    randn_like: Callable[[Tensor], Tensor],
    round_sigma: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """The state with fresh noise, and the higher level that it then has."""
    factor = churn.factor(level, steps)
    if not factor:
        if churn.everywhere:
            randn_like(x)
        return x, level
    higher = round_sigma(level + factor * level)
    return x + (higher**2 - level**2).sqrt() * churn.inflation * randn_like(x), higher
