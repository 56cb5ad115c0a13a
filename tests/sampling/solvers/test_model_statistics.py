"""Empirical model statistics: exact where they fit the model, harmless elsewhere, read as they are published."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError
from ddo_plugin.sampling.solvers import dpm_solver_v3
from ddo_plugin.sampling.solvers.model_statistics import DataPrediction, ModelStatistics, read
from ddo_plugin.sampling.solvers.noise_levels import noise_steps
from tests.sampling.solvers.mixture import Mixture

SHAPE = (1, 2, 2)
MEANS = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64).reshape(SHAPE)
STDS = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64).reshape(SHAPE)


def latents(count: int = 16) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def gaussian(noisy: Tensor, sigma: Tensor) -> Tensor:
    """The ideal denoiser of N(MEANS, STDS²), a Gaussian of its own at every pixel."""
    return MEANS + (noisy.double() - MEANS) * STDS**2 / (STDS**2 + sigma.double() ** 2)


def grid(cells: int) -> Tensor:
    return torch.linspace(-math.log(80), -math.log(0.002), cells + 1, dtype=torch.float64)


def fitted(cells: int, by: str, sign: float = 1.0) -> ModelStatistics:
    """Those that leave a Gaussian's g constant: with l = σ²/(σ² + c²) f is −m l, and s or b follows f' = −m l'."""
    log_snrs = grid(cells)
    noise = (-2 * log_snrs).exp().reshape(-1, 1, 1, 1)
    l = noise / (noise + STDS**2)  # noqa: E741
    bend = -2 * l * (1 - l)  # l'
    zero = torch.zeros_like(l)
    return ModelStatistics(log_snrs, l, *((bend / l * sign, zero) if by == "s" else (zero, -MEANS * bend * sign)))


def one_step_error(statistics: ModelStatistics | None) -> float:
    """Of one step of order 1 from σ = 80 to 0.002."""
    sigmas = torch.tensor([80.0, 0.002], dtype=torch.float64)
    found = dpm_solver_v3.sample(gaussian, latents(), sigmas, order=1, statistics=statistics)
    shrunk = ((STDS**2 + 0.002**2) / (STDS**2 + 80.0**2)).sqrt()
    return float((found - MEANS - (latents() * 80 - MEANS) * shrunk).abs().max())


@pytest.mark.parametrize("by", ["s", "b"])
def test_statistics_that_fit_a_gaussian_solve_it_in_one_step(by: str) -> None:
    assert one_step_error(fitted(1200, by)) < 1e-3
    assert one_step_error(fitted(1200, by)) < one_step_error(None) / 1000
    assert one_step_error(fitted(120, by)) == pytest.approx(one_step_error(fitted(60, by)) / 4, rel=0.15)


@pytest.mark.parametrize("by", ["s", "b"])
def test_with_the_wrong_sign_they_would_not(by: str) -> None:
    assert one_step_error(fitted(1200, by, sign=-1.0)) > 0.1


@pytest.mark.parametrize("order", [1, 2, 3])
def test_constant_statistics_of_data_prediction_are_the_default(order: int) -> None:
    """However coarse their grid, whose points are not among the noise levels."""
    ones, zeros = torch.ones(31, *SHAPE), torch.zeros(31, *SHAPE)
    statistics = ModelStatistics(grid(30), ones, zeros, zeros)
    for corrector, pseudo, to_zero in itertools.product([True, False], repeat=3):
        options: dict[str, Any] = {"corrector": corrector, "pseudo_predictor": pseudo, "pseudo_corrector": pseudo}
        sigmas = noise_steps(7, to_zero=to_zero)
        default = dpm_solver_v3.sample(Mixture(), latents(), sigmas, order=order, **options)
        found = dpm_solver_v3.sample(Mixture(), latents(), sigmas, order=order, **options, statistics=statistics)
        torch.testing.assert_close(found, default, atol=1e-6, rtol=0)  # the denoiser is handed float32


def test_a_steps_integrals_are_those_of_data_prediction_to_float64() -> None:
    ones, zeros = torch.ones(31, 1), torch.zeros(31, 1)
    statistics = ModelStatistics(grid(30), ones, zeros, zeros)
    found, expected = (rule.step(-1.3, 2.9, 3) for rule in (statistics, DataPrediction()))
    assert float(found.decay) == pytest.approx(expected.decay, rel=1e-12)
    assert [float(weight) for weight in found.weights] == pytest.approx(expected.weights, rel=1e-12)
    assert float(found.bias) == 0


def arbitrary(cells: int) -> ModelStatistics:
    log_snrs = grid(cells)
    at = log_snrs.reshape(-1, 1, 1, 1) + torch.linspace(0, 1, 4, dtype=torch.float64).reshape(SHAPE)
    return ModelStatistics(log_snrs, at.sigmoid() + 0.1 * at.sin(), 0.3 * at.cos(), 0.2 * (2 * at).sin())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_any_smooth_statistics_keep_the_order(order: int) -> None:
    """They change how fast a sampler is, not where it goes."""
    exact, counts = Mixture().transport(latents() * 80, 80, 0.002), (32, 64, 128)
    errors = []
    for count in counts:
        sigmas = noise_steps(count, spacing="logSNR", to_zero=False)
        options: dict[str, Any] = {"order": order, "corrector": False, "statistics": arbitrary(2000)}
        errors.append(float((dpm_solver_v3.sample(Mixture(), latents(), sigmas, **options) - exact).square().mean()))
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] / 2 == pytest.approx(order, abs=0.4)


def test_a_carried_value_comes_back_unchanged() -> None:
    there, shift = arbitrary(100).carry(1.0, -0.7)
    back, shift_back = arbitrary(100).carry(-0.7, 1.0)
    g = there * 3.0 - shift  # f = 3 at −0.7, seen from 1
    torch.testing.assert_close((g + shift) / there, torch.full(SHAPE, 3.0, dtype=torch.float64))
    torch.testing.assert_close(there * back, torch.ones(SHAPE, dtype=torch.float64))
    torch.testing.assert_close(shift, -there * shift_back, rtol=1e-2, atol=1e-4)  # the trapezoidal rule's error


def test_noise_levels_outside_the_statistics_are_refused() -> None:
    statistics = arbitrary(100)
    dpm_solver_v3.sample(Mixture(), latents(), noise_steps(4, 0.001999, 80.01), statistics=statistics)
    with pytest.raises(UserError, match=r"cover σ from 0.002 to 80, but the noise levels go from 0.001 to 80"):
        dpm_solver_v3.sample(Mixture(), latents(), noise_steps(4, sigma_min=0.001), statistics=statistics)


def test_statistics_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="same number of rows"):
        ModelStatistics(grid(4), torch.ones(5), torch.ones(4), torch.ones(5))


# -- the authors' files -----------------------------------------------------------------------------------------------


def write(folder: Path, statistics: ModelStatistics) -> Path:
    folder.mkdir()
    np.savez(folder / "l.npz", l=statistics.l.numpy())
    np.savez(folder / "sb.npz", s=statistics.s.numpy(), b=statistics.b.numpy())
    return folder


def test_statistics_are_read_with_the_range_that_their_folder_is_named_after(tmp_path: Path) -> None:
    written = arbitrary(120)
    found = read(write(tmp_path / "0.002_80.0_120_4096", written))
    for name in ("log_snrs", "l", "s", "b"):
        torch.testing.assert_close(getattr(found, name), getattr(written, name))
    assert read(str(tmp_path / "0.002_80.0_120_4096"), 0.01, 50.0).log_snrs[[0, -1]].tolist() == pytest.approx(
        [-math.log(50), -math.log(0.01)]
    )


def damage_missing(folder: Path) -> None:
    (folder / "sb.npz").unlink()


def damage_truncated(folder: Path) -> None:
    (folder / "l.npz").write_bytes((folder / "l.npz").read_bytes()[:100])


def damage_text(folder: Path) -> None:
    (folder / "l.npz").write_text("not a zip")


def damage_array(folder: Path) -> None:
    with (folder / "l.npz").open("wb") as file:
        np.save(file, np.ones(3))


def damage_key(folder: Path) -> None:
    np.savez(folder / "sb.npz", s=np.ones((121, *SHAPE)))


def damage_shape(folder: Path) -> None:
    np.savez(folder / "l.npz", l=np.ones((120, *SHAPE)))


def damage_nan(folder: Path) -> None:
    np.savez(folder / "l.npz", l=np.full((121, *SHAPE), np.nan))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_missing, r"sb\.npz: cannot be read"),
        (damage_truncated, r"l\.npz: cannot be read"),
        (damage_text, r"l\.npz: cannot be read"),
        (damage_array, r"l\.npz: cannot be read"),
        (damage_key, r"sb\.npz: cannot read b\.npy"),
        (damage_shape, r"l, s and b have the shapes \(120, 1, 2, 2\)"),
        (damage_nan, r"l holds NaN or infinity"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, damage: Any, says: str) -> None:
    folder = write(tmp_path / "statistics", arbitrary(120))
    damage(folder)
    with pytest.raises(UserError, match=says) as refused:
        read(folder)
    assert "\n" not in str(refused.value)
