"""Measure the errors of Heun's method and DPM-Solver-v3 at equal numbers of evaluations.

The problem is a Gaussian mixture with a solution in closed form.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ddo_plugin.sampling.solvers import dpm_solver_v3, heun
from ddo_plugin.sampling.solvers.noise_levels import noise_steps
from tests.sampling.solvers.mixture import Mixture

EVALUATIONS = (5, 9, 17, 35, 63, 127)  # odd, because Heun's method takes odd numbers
COORDINATES, SIGMA_MAX = 4096, 80.0
Denoised = Callable[[Tensor, Tensor], Tensor]


def by_heun(spacing: str) -> Callable[[Denoised, Tensor, int], Tensor]:
    def sample(denoise: Denoised, latents: Tensor, evaluations: int) -> Tensor:
        return heun.heun_sample(denoise, latents, noise_steps((evaluations + 1) // 2, spacing=spacing))

    return sample


def by_v3(spacing: str, **options: bool | int) -> Callable[[Denoised, Tensor, int], Tensor]:
    def sample(denoise: Denoised, latents: Tensor, evaluations: int) -> Tensor:
        sigmas = noise_steps(evaluations, spacing=spacing)
        return dpm_solver_v3.sample(denoise, latents, sigmas, **options)  # type: ignore[arg-type]

    return sample


SOLVERS = {
    "Heun, edm": by_heun("edm"),
    "Heun, logSNR": by_heun("logSNR"),
    "v3, edm, order 2": by_v3("edm"),
    "v3, edm, order 3": by_v3("edm", order=3),
    "v3, logSNR, order 2, no corrector": by_v3("logSNR", corrector=False),
    "v3, logSNR, order 2": by_v3("logSNR"),
    "v3, logSNR, order 3, pseudo-corrector": by_v3("logSNR", order=3, pseudo_corrector=True),
    "v3, logSNR, order 3": by_v3("logSNR", order=3),
}


class Counted:
    """The mixture's denoiser, which counts its calls."""

    def __init__(self, mixture: Mixture):
        self.mixture, self.calls = mixture, 0

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self.mixture(noisy, sigma)


def measure() -> dict[str, list[float]]:
    """Return the root mean square errors of each solver for each number of evaluations."""
    mixture = Mixture()
    latents = torch.randn(COORDINATES, 1, generator=torch.Generator().manual_seed(0))
    exact = mixture.transport(latents * SIGMA_MAX, SIGMA_MAX, 0)
    errors: dict[str, list[float]] = {}
    for name, solver in SOLVERS.items():
        for evaluations in EVALUATIONS:
            denoise = Counted(mixture)
            difference = solver(denoise, latents, evaluations) - exact
            if denoise.calls != evaluations:
                raise RuntimeError(f"{name} took {denoise.calls} evaluations instead of {evaluations}")
            errors.setdefault(name, []).append(float(difference.square().mean().sqrt()))
    return errors


def main() -> None:
    """Print the errors of Heun's method, and by how much each solver divides them."""
    measured = measure()
    base = measured.pop("Heun, edm")
    print(f"RMS error on a Gaussian mixture (standard deviation {Mixture().std():.2f}) against the exact solution\n")
    print("| evaluations | " + " | ".join(map(str, EVALUATIONS)) + " |\n|---" + "|---" * len(EVALUATIONS) + "|")
    print("| Heun, edm: error | " + " | ".join(f"{error:.1e}" for error in base) + " |")
    for name, errors in measured.items():
        ratios = (f"{heuns / ours:.1f}" for heuns, ours in zip(base, errors, strict=True))
        print(f"| {name}: Heun's error / its own | " + " | ".join(ratios) + " |")


if __name__ == "__main__":
    main()
