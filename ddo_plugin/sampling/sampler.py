"""The solver, the noise levels and the fresh noise that a command's options ask for."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.hooks.streams import SampleGenerators
from ddo_plugin.objective.diffusion import Denoiser
from ddo_plugin.sampling.solvers import dpm_solver_v3, heun, model_statistics
from ddo_plugin.sampling.solvers.choices import DPM_SOLVER_V3
from ddo_plugin.sampling.solvers.noise_levels import noise_steps

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # of EDM and EDM2
CHURN = ("S_churn", "S_min", "S_max", "S_noise")
MULTISTEP = {"order": 2, "spacing": "edm", "statistics": None}  # DPM-Solver-v3's own, as the release has them


@dataclass(frozen=True)
class Sampler:
    """What `sampler_options` say."""

    solver: str
    steps: int
    sigma_min: float
    sigma_max: float
    rho: float
    S_churn: float
    S_min: float
    S_max: float
    S_noise: float
    order: int = 2
    spacing: str = "edm"
    statistics: model_statistics.ModelStatistics | None = None
    statistics_files: Mapping[str, str] | None = None  # their sha256 by path

    @classmethod
    def of(
        cls, options: Mapping[str, Any], shape: Sequence[int], supported: tuple[float, float] | None = None
    ) -> Sampler:
        """For samples of a shape [C, H, W], within the noise levels that a network supports; refuses nonsense."""
        solver = options["solver"] or "heun"
        lowest, highest = _levels(options, supported or (0.0, math.inf))
        told = {name: options[name] for name in MULTISTEP if options[name] is not None}
        plain = {name: options[name] for name in ("steps", "rho", *CHURN)}
        sampler = cls(solver=solver, sigma_min=lowest, sigma_max=highest, **plain)
        if solver != DPM_SOLVER_V3:
            if told:
                raise UserError(
                    f"--{next(iter(told))} is of {DPM_SOLVER_V3}, not of {solver}: --solver={DPM_SOLVER_V3}"
                )
            return sampler
        if options["S_churn"]:
            raise UserError(f"--S_churn asks for fresh noise, but {DPM_SOLVER_V3} solves the ODE; drop one of them")
        folder = told.pop("statistics", None)
        sampler = replace(sampler, **told)
        return sampler if folder is None else sampler._with_statistics(folder, shape)

    def _with_statistics(self, folder: Path, shape: Sequence[int]) -> Sampler:
        """With empirical model statistics, which must be of such samples and cover the noise levels."""
        values = model_statistics.read(folder, *model_statistics.range_of(folder))
        theirs = tuple(values.l.shape[1:])
        if theirs not in (tuple(shape), (1,) * len(shape)):
            raise UserError(f"--statistics={folder} is of samples {theirs}, but the network's are {tuple(shape)}")
        values.check([-math.log(self.sigma_max), -math.log(self.sigma_min)])
        files = {str(path): sha256_file(path) for path in sorted(folder.glob("*.npz"))}
        return replace(self, statistics=values, statistics_files=files)

    def settings(self) -> dict[str, Any]:
        """For a manifest: what has an effect. JSON knows no infinity."""
        names = ["steps", "sigma_min", "sigma_max", "rho", *(CHURN if self.S_churn else ())]
        if self.solver == DPM_SOLVER_V3:
            names += ["order", "spacing"]
            if self.spacing != "edm":
                names.remove("rho")
        told = {"name": self.solver, **{name: getattr(self, name) for name in names}}
        if self.statistics_files:
            told["statistics"] = dict(self.statistics_files)
        return {name: value if value != math.inf else "inf" for name, value in told.items()}

    def solve(
        self,
        denoise: Denoiser,
        noise: Tensor,
        streams: SampleGenerators,
        *,
        dtype: torch.dtype,
        round_sigma: Callable[[Tensor], Tensor] = lambda sigma: sigma,
        churn_everywhere: bool = False,
    ) -> Tensor:
        """Samples from unit-variance noise; Heun and Euler in upstream's arithmetic to the last bit, in its dtype."""
        if self.solver == DPM_SOLVER_V3:
            return self._multistep(denoise, noise, round_sigma).to(dtype)
        levels = noise_steps(self.steps, self.sigma_min, self.sigma_max, self.rho, dtype=dtype, device=noise.device)
        churn = heun.Churn(self.S_churn, self.S_min, self.S_max, self.S_noise, churn_everywhere)
        return heun.heun_sample(
            denoise,
            noise,
            torch.cat([round_sigma(levels[:-1]), levels[-1:]]),
            churn=churn if self.S_churn else None,
            randn_like=lambda x: streams.randn(*x.shape[1:], dtype=x.dtype),
            round_sigma=round_sigma,
            second_order=self.solver == "heun",
        )

    def _multistep(self, denoise: Denoiser, noise: Tensor, round_sigma: Callable[[Tensor], Tensor]) -> Tensor:
        """DPM-Solver-v3 as the release runs it: one evaluation a step, the last step ends at σ_min."""
        levels = noise_steps(
            self.steps,
            self.sigma_min,
            self.sigma_max,
            self.rho,
            spacing=self.spacing,
            to_zero=False,
            device=noise.device,
        )
        levels = round_sigma(levels)
        if (levels.diff() >= 0).any():
            raise UserError(
                f"--steps={self.steps} asks for more noise levels than the network can tell apart; take fewer"
            )
        return dpm_solver_v3.sample(denoise, noise, levels, order=self.order, statistics=self.statistics)


def _levels(options: Mapping[str, Any], supported: tuple[float, float]) -> tuple[float, float]:
    """σ_min and σ_max: those told, or EDM's, within what the network supports."""
    lowest = max(SIGMA_MIN if options["sigma_min"] is None else options["sigma_min"], supported[0])
    highest = min(SIGMA_MAX if options["sigma_max"] is None else options["sigma_max"], supported[1])
    if lowest >= highest:
        raise UserError(f"noise would go from --sigma-max={highest:g} up to --sigma-min={lowest:g}; it has to go down")
    if math.log(highest) / options["rho"] > math.log(sys.float_info.max):
        raise UserError(
            f"--rho={options['rho']:g} is too small for noise from {highest:g}, whose power 1/ρ no float holds"
        )
    return lowest, highest
