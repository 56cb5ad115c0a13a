"""The ablation flags of generate.py: noise levels, noise schedules σ(t) and scalings s(t) (Karras et al. 2022).

The ODE is dx/dt = (σ'/σ + s'/s) x − (σ' s / σ) D(x / s; σ), from Algorithm 1 of the paper. Noise levels, schedules and
scalings are those of its Table 1. The order of sums and products is that of generate.py, so that rounding is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddo_plugin import (
    CHURN,
    DPM_SOLVER_V3,
    Churn,
    Denoiser,
    SampleGenerators,
    Sampler,
    UserError,
    estimate_clean,
    noise_steps,
)

EPSILON = 1e-3  # the smallest time of VP
BETAS = 19.9, 0.1  # β_d and β_min of VP without --sigma-min and --sigma-max
IDDPM_LEVELS, IDDPM_STRETCH, IDDPM_LEAST = 1000, 0.008, 0.001  # M, C_2 and C_1
FLAGS = ("disc", "schedule", "scaling")


@dataclass(frozen=True)
class Linear:
    """σ(t) = t."""

    def sigma(self, t: Any) -> Any:
        return t

    def slope(self, t: Any) -> Any:
        return 1.0

    def time(self, sigma: Any) -> Any:
        return sigma


@dataclass(frozen=True)
class VarianceExploding:
    """σ(t) = √t."""

    def sigma(self, t: Any) -> Any:
        return t.sqrt()

    def slope(self, t: Any) -> Any:
        return 1 / (2 * t.sqrt())

    def time(self, sigma: Any) -> Any:
        return sigma**2


@dataclass(frozen=True)
class VariancePreserving:
    """σ(t)² = e^{β_d t² / 2 + β_min t} − 1."""

    beta_d: float
    beta_min: float

    def sigma(self, t: Any) -> Any:
        return (math.e ** (self.beta_d / 2 * t**2 + self.beta_min * t) - 1) ** 0.5

    def slope(self, t: Any) -> Any:
        sigma = self.sigma(t)
        return (self.beta_min + self.beta_d * t) / 2 * (sigma + 1 / sigma)

    def time(self, sigma: Any) -> Any:
        return ((self.beta_min**2 + 2 * self.beta_d * (sigma**2 + 1).log()).sqrt() - self.beta_min) / self.beta_d

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float) -> VariancePreserving:
        """Return the schedule with σ(ε) = σ_min and σ(1) = σ_max."""
        low, high = (float(np.log(sigma**2 + 1)) for sigma in (sigma_min, sigma_max))
        beta_d = 2 * (low / EPSILON - high) / (EPSILON - 1)
        return cls(beta_d, high - beta_d / 2)


Schedule = Linear | VarianceExploding | VariancePreserving
RANGES = {  # σ_min and σ_max for each --disc
    "vp": tuple(VariancePreserving(*BETAS).sigma(t) for t in (EPSILON, 1)),
    "ve": (0.02, 100.0),
    "iddpm": (0.002, 81.0),
    "edm": (0.002, 80.0),
}


@dataclass(frozen=True)
class Path:
    """A noise schedule with or without VP's scaling s(t) = 1 / √(1 + σ²)."""

    schedule: Schedule
    scaled: bool

    def scale(self, t: Tensor) -> Any:
        return 1 / (1 + self.schedule.sigma(t) ** 2).sqrt() if self.scaled else 1.0

    def slope(self, denoise: Denoiser, x: Tensor, t: Tensor) -> Tensor:
        """Return dx/dt."""
        sigma, sigma_deriv, s = self.schedule.sigma(t), self.schedule.slope(t), self.scale(t)
        s_deriv = -sigma * sigma_deriv * s**3 if self.scaled else 0.0
        denoised = estimate_clean(denoise, x / s, sigma)
        return (sigma_deriv / sigma + s_deriv / s) * x - sigma_deriv * s / sigma * denoised


def asked(options: Mapping[str, Any]) -> bool:
    """Return whether generate.py would use its ablation sampler, which rounds differently even with --solver=heun."""
    flags = any(options[name] is not None for name in FLAGS)
    if flags and options["solver"] == DPM_SOLVER_V3:
        name = next(name for name in FLAGS if options[name] is not None)
        raise UserError(f"--{name} needs --solver=heun or euler; with --solver={DPM_SOLVER_V3} use --spacing")
    return flags or options["solver"] in ("heun", "euler")


@dataclass(frozen=True)
class AblationSampler:
    """The sampler's options and the ablation flags."""

    sampler: Sampler
    disc: str
    schedule: str
    scaling: str

    @classmethod
    def of(cls, options: Mapping[str, Any], network: Any, shape: tuple[int, ...]) -> AblationSampler:
        disc = options["disc"] or "edm"
        names = ("sigma_min", "sigma_max")
        default = dict(zip(names, RANGES[disc], strict=True))
        passed = {name: options[name] for name in names if options[name] is not None}
        supported = (network.sigma_min, network.sigma_max)
        sampler = Sampler.of({**options, **default, **passed}, shape, supported)
        return cls(sampler, disc, options["schedule"] or "linear", options["scaling"] or "none")

    def settings(self) -> dict[str, Any]:
        """Return the settings for a manifest."""
        settings = {**self.sampler.settings(), **{name: getattr(self, name) for name in FLAGS}}
        if self.disc != "edm":
            del settings["rho"]
        return settings

    def solve(
        self, denoise: Denoiser, noise: Tensor, streams: SampleGenerators, round_sigma: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return samples from unit-variance noise. Every step draws noise; without churn its weight is near 0."""
        path, steps = self._path(), self.sampler.steps
        schedule, churn = path.schedule, Churn(*(getattr(self.sampler, name) for name in CHURN))
        times = schedule.time(round_sigma(self._levels(noise.device)))
        times = torch.cat([times, times.new_zeros(1)])
        x = noise.to(torch.float64) * (schedule.sigma(times[0]) * path.scale(times[0]))
        for t, t_next in pairwise(times):
            sigma = schedule.sigma(t)
            t_hat = schedule.time(round_sigma(sigma + churn.factor(sigma, steps) * sigma))
            epsilon = streams.randn(*x.shape[1:], dtype=x.dtype)
            added = (schedule.sigma(t_hat) ** 2 - sigma**2).clip(min=0).sqrt() * path.scale(t_hat) * churn.inflation
            x_hat = path.scale(t_hat) / path.scale(t) * x + added * epsilon
            h = t_next - t_hat
            d = path.slope(denoise, x_hat, t_hat)
            x = x_hat + h * d
            if self.sampler.solver == "heun" and t_next > 0:
                d_prime = path.slope(denoise, x, t_hat + h)  # t_hat + h, not t_next, for generate.py's rounding
                x = x_hat + h * (d + d_prime) / 2
        return x

    def _path(self) -> Path:
        schedules: dict[str, Schedule] = {"linear": Linear(), "ve": VarianceExploding(), "vp": self._preserving()}
        return Path(schedules[self.schedule], self.scaling == "vp")

    def _preserving(self) -> VariancePreserving:
        return VariancePreserving.between(self.sampler.sigma_min, self.sampler.sigma_max)

    def _levels(self, device: torch.device) -> Tensor:
        """Return [steps] noise levels from σ_max to σ_min."""
        steps, lowest, highest = self.sampler.steps, self.sampler.sigma_min, self.sampler.sigma_max
        if self.disc == "edm":
            return noise_steps(steps, lowest, highest, self.sampler.rho, device=device)[:-1]
        numbers, last = torch.arange(steps, dtype=torch.float64, device=device), max(steps - 1, 1)
        if self.disc == "vp":
            return self._preserving().sigma(1 + numbers / last * (EPSILON - 1))
        if self.disc == "ve":
            return (highest**2 * (lowest**2 / highest**2) ** (numbers / last)).sqrt()
        supported = _iddpm_levels(device)
        supported = supported[(supported >= lowest) & (supported <= highest)]
        return supported[((len(supported) - 1) / last * numbers).round().long()]


def _iddpm_levels(device: torch.device) -> Tensor:
    """Return u_0, …, u_M: the noise levels of iDDPM, which decrease to 0."""
    numbers = torch.arange(IDDPM_LEVELS + 1, device=device)
    alpha_bar = (math.pi / 2 * numbers / IDDPM_LEVELS / (IDDPM_STRETCH + 1)).sin() ** 2  # in float32, like upstream
    levels = torch.zeros(IDDPM_LEVELS + 1, dtype=torch.float64, device=device)
    for j in range(IDDPM_LEVELS, 0, -1):
        levels[j - 1] = ((levels[j] ** 2 + 1) / (alpha_bar[j - 1] / alpha_bar[j]).clip(min=IDDPM_LEAST) - 1).sqrt()
    return levels
