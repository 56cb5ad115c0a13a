"""The noise levels at which a solver evaluates the denoiser."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddo_plugin.sampling.solvers.choices import SPACINGS


def noise_steps(
    steps: int,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    *,
    spacing: str = "edm",
    to_zero: bool = True,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return [steps + 1] decreasing noise levels from σ_max to σ_min and then 0, or without `to_zero` to σ_min.

    The spacing is even in σ^(1/ρ) ("edm": Karras et al. 2022, Eq. 5), in log σ ("logSNR") or in σ ("time_uniform",
    because the time of EDM's ODE is σ).
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if not 0 < sigma_min <= sigma_max < math.inf:
        raise ValueError(
            f"sigma_min must be positive and at most sigma_max, not {sigma_min} with sigma_max {sigma_max}"
        )
    count = steps if to_zero else steps + 1
    ramp = torch.arange(count, dtype=dtype, device=device) / max(count - 1, 1)
    if spacing == "edm":
        levels = _between(sigma_max ** (1 / rho), sigma_min ** (1 / rho), ramp) ** rho
    elif spacing == "logSNR":
        levels = _between(math.log(sigma_max), math.log(sigma_min), ramp).exp()
    elif spacing == "time_uniform":
        levels = _between(sigma_max, sigma_min, ramp)
    else:
        raise ValueError(f"no spacing {spacing!r}; choose from {', '.join(SPACINGS)}")
    return torch.cat([levels, levels.new_zeros(1)]) if to_zero else levels


def check_levels(sigmas: Tensor) -> None:
    """Refuse fewer than 2 noise levels, and levels that rise."""
    if len(sigmas) < 2 or not bool((sigmas.diff() <= 0).all()):
        raise ValueError(f"there must be at least 2 noise levels, in decreasing order, not {sigmas.tolist()}")


def _between(top: float, bottom: float, ramp: Tensor) -> Tensor:
    return top + ramp * (bottom - top)
