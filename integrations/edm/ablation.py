"""generate.py's ablation flags: other noise levels, noise schedules σ(t) and scalings s(t) (Karras et al. 2022).

The ODE is dx/dt = (σ'/σ + s'/s) x − (σ' s / σ) D(x / s; σ), of Algorithm 1 there; levels, schedules and scalings are
those of Table 1. Sums and products stand in the order that generate.py rounds in.
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

EPSILON = 1e-3  # the least time of VP
BETAS = 19.9, 0.1  # β_d and β_min of VP, where nothing else says its range
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
        """The one with σ(ε) = σ_min and σ(1) = σ_max."""
        low, high = (float(np.log(sigma**2 + 1)) for sigma in (sigma_min, sigma_max))
        beta_d = 2 * (low / EPSILON - high) / (EPSILON - 1)
        return cls(beta_d, high - beta_d / 2)


Schedule = Linear | VarianceExploding | VariancePreserving
RANGES = {  # of noise levels, for each --disc
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
        """dx/dt."""
        sigma, rise, scale = self.schedule.sigma(t), self.schedule.slope(t), self.scale(t)
        shrinking = -sigma * rise * scale**3 if self.scaled else 0.0
        denoised = estimate_clean(denoise, x / scale, sigma)
        return (rise / sigma + shrinking / scale) * x - rise * scale / sigma * denoised


def asked(options: Mapping[str, Any]) -> bool:
    """Whether generate.py would take its ablation sampler: also for --solver=heun, which then rounds otherwise."""
    flags = any(options[name] is not None for name in FLAGS)
    if flags and options["solver"] == DPM_SOLVER_V3:
        name = next(name for name in FLAGS if options[name] is not None)
        raise UserError(f"--{name} is for heun and euler; --solver={DPM_SOLVER_V3} has --spacing instead")
    return flags or options["solver"] in ("heun", "euler")


@dataclass(frozen=True)
class AblationSampler:
    """The sampler's options, and those flags."""

    sampler: Sampler
    disc: str
    schedule: str
    scaling: str

    @classmethod
    def of(cls, options: Mapping[str, Any], network: Any, shape: tuple[int, ...]) -> AblationSampler:
        disc = options["disc"] or "edm"
        names = ("sigma_min", "sigma_max")
        default = dict(zip(names, RANGES[disc], strict=True))
        told = {name: options[name] for name in names if options[name] is not None}
        supported = (network.sigma_min, network.sigma_max)
        sampler = Sampler.of({**options, **default, **told}, shape, supported)
        return cls(sampler, disc, options["schedule"] or "linear", options["scaling"] or "none")

    def settings(self) -> dict[str, Any]:
        """For a manifest."""
        told = {**self.sampler.settings(), **{name: getattr(self, name) for name in FLAGS}}
        if self.disc != "edm":
            del told["rho"]
        return told

    def solve(
        self, denoise: Denoiser, noise: Tensor, streams: SampleGenerators, round_sigma: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Samples from unit-variance noise. Every step draws fresh noise: without churn, rounding errors weigh it."""
        path, steps = self._path(), self.sampler.steps
        schedule, churn = path.schedule, Churn(*(getattr(self.sampler, name) for name in CHURN))
        times = schedule.time(round_sigma(self._levels(noise.device)))
        times = torch.cat([times, times.new_zeros(1)])
        x = noise.to(torch.float64) * (schedule.sigma(times[0]) * path.scale(times[0]))
        for before, there in pairwise(times):
            level = schedule.sigma(before)
            here = schedule.time(round_sigma(level + churn.factor(level, steps) * level))
            fresh = streams.randn(*x.shape[1:], dtype=x.dtype)
            added = (schedule.sigma(here) ** 2 - level**2).clip(min=0).sqrt() * path.scale(here) * churn.inflation
            x = path.scale(here) / path.scale(before) * x + added * fresh
            step = there - here
            first = path.slope(denoise, x, here)
            euler = x + step * first
            if self.sampler.solver == "heun" and there > 0:
                x = x + step * (first + path.slope(denoise, euler, here + step)) / 2
            else:
                x = euler
        return x

    def _path(self) -> Path:
        schedules: dict[str, Schedule] = {"linear": Linear(), "ve": VarianceExploding(), "vp": self._preserving()}
        return Path(schedules[self.schedule], self.scaling == "vp")

    def _preserving(self) -> VariancePreserving:
        return VariancePreserving.between(self.sampler.sigma_min, self.sampler.sigma_max)

    def _levels(self, device: torch.device) -> Tensor:
        """[steps] noise levels from σ_max to σ_min."""
        steps, lowest, highest = self.sampler.steps, self.sampler.sigma_min, self.sampler.sigma_max
        if self.disc == "edm":
            return noise_steps(steps, lowest, highest, self.sampler.rho, device=device)[:-1]
        numbers, last = torch.arange(steps, dtype=torch.float64, device=device), max(steps - 1, 1)
        if self.disc == "vp":
            return self._preserving().sigma(1 + numbers / last * (EPSILON - 1))
        if self.disc == "ve":
            return (highest**2 * (lowest**2 / highest**2) ** (numbers / last)).sqrt()
        known = _iddpm_levels(device)
        known = known[(known >= lowest) & (known <= highest)]
        return known[((len(known) - 1) / last * numbers).round().long()]


def _iddpm_levels(device: torch.device) -> Tensor:
    """u_0, …, u_M: the noise levels of iDDPM, falling to 0."""
    numbers = torch.arange(IDDPM_LEVELS + 1, device=device)
    kept = (math.pi / 2 * numbers / IDDPM_LEVELS / (IDDPM_STRETCH + 1)).sin() ** 2  # ᾱ, in float32 as upstream's
    levels = torch.zeros(IDDPM_LEVELS + 1, dtype=torch.float64, device=device)
    for j in range(IDDPM_LEVELS, 0, -1):
        levels[j - 1] = ((levels[j] ** 2 + 1) / (kept[j - 1] / kept[j]).clip(min=IDDPM_LEAST) - 1).sqrt()
    return levels
