"""The solver, noise levels and churn that the sampler options of a command select."""

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

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # EDM and EDM2
CHURN = ("S_churn", "S_min", "S_max", "S_noise")
# options of DPM-Solver-v3 only, with the values of the release
MULTISTEP = {"order": 2, "spacing": "edm", "statistics": None}


@dataclass(frozen=True)
class Sampler:
    """The values of `sampler_options`."""

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
    statistics_files: Mapping[str, str] | None = None  # path -> sha256

    @classmethod
    def of(
        cls, options: Mapping[str, Any], shape: Sequence[int], supported: tuple[float, float] | None = None
    ) -> Sampler:
        """Check the options for samples of a shape [C, H, W] and the noise levels that a network supports."""
        solver = options["solver"] or "heun"
        lowest, highest = _levels(options, supported or (0.0, math.inf))
        multistep = {name: options[name] for name in MULTISTEP if options[name] is not None}
        plain = {name: options[name] for name in ("steps", "rho", *CHURN)}
        sampler = cls(solver=solver, sigma_min=lowest, sigma_max=highest, **plain)
        if solver != DPM_SOLVER_V3:
            if multistep:
                name = next(iter(multistep))
                raise UserError(f"--{name} needs --solver={DPM_SOLVER_V3}, but the solver is {solver}")
            return sampler
        if options["S_churn"]:
            raise UserError(
                f"--S_churn adds noise, but {DPM_SOLVER_V3} solves the ODE without noise; drop one of the options"
            )
        folder = multistep.pop("statistics", None)
        sampler = replace(sampler, **multistep)
        return sampler if folder is None else sampler._with_statistics(folder, shape)

    def _with_statistics(self, folder: Path, shape: Sequence[int]) -> Sampler:
        """Add empirical model statistics, which must fit the shape and the noise levels."""
        values = model_statistics.read(folder, *model_statistics.range_of(folder))
        statistics_shape = tuple(values.l.shape[1:])
        if statistics_shape not in (tuple(shape), (1,) * len(shape)):
            raise UserError(
                f"--statistics={folder}: the statistics have the shape {statistics_shape}, but the network's samples "
                f"have {tuple(shape)}; pass the statistics of this network"
            )
        values.check([-math.log(self.sigma_max), -math.log(self.sigma_min)])
        files = {str(path): sha256_file(path) for path in sorted(folder.glob("*.npz"))}
        return replace(self, statistics=values, statistics_files=files)

    def settings(self) -> dict[str, Any]:
        """Return the settings that have an effect, for a manifest. JSON has no infinity, so it becomes a string."""
        names = ["steps", "sigma_min", "sigma_max", "rho", *(CHURN if self.S_churn else ())]
        if self.solver == DPM_SOLVER_V3:
            names += ["order", "spacing"]
            if self.spacing != "edm":
                names.remove("rho")
        settings = {"name": self.solver, **{name: getattr(self, name) for name in names}}
        if self.statistics_files:
            settings["statistics"] = dict(self.statistics_files)
        return {name: value if value != math.inf else "inf" for name, value in settings.items()}

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
        """Return samples from unit-variance noise. Heun and Euler equal upstream's samplers bit for bit in `dtype`."""
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
        """Run DPM-Solver-v3 like the release: one evaluation per step, and the last step ends at σ_min."""
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
                f"--steps={self.steps}: the network cannot distinguish so many noise levels; use fewer steps"
            )
        return dpm_solver_v3.sample(denoise, noise, levels, order=self.order, statistics=self.statistics)


def _levels(options: Mapping[str, Any], supported: tuple[float, float]) -> tuple[float, float]:
    """Return σ_min and σ_max from the options, or EDM's, limited to the range that the network supports."""
    lowest = max(SIGMA_MIN if options["sigma_min"] is None else options["sigma_min"], supported[0])
    highest = min(SIGMA_MAX if options["sigma_max"] is None else options["sigma_max"], supported[1])
    if lowest >= highest:
        raise UserError(f"--sigma-min={lowest:g} must be below --sigma-max={highest:g}")
    if math.log(highest) / options["rho"] > math.log(sys.float_info.max):
        raise UserError(f"--rho={options['rho']:g} is too small: {highest:g}^(1/ρ) overflows; use a larger value")
    return lowest, highest
