"""DPM-Solver-v3 against the probability-flow ODE of a mixture of Gaussians, which has a closed form."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddo_plugin.sampling.solvers import dpm_solver_v3, heun
from ddo_plugin.sampling.solvers.choices import SPACINGS
from ddo_plugin.sampling.solvers.model_statistics import DataPrediction, Step
from ddo_plugin.sampling.solvers.noise_levels import noise_steps
from tests.sampling.solvers.mixture import Mixture

MIXTURE = Mixture()
OPTIONS = ("corrector", "pseudo_predictor", "pseudo_corrector", "lower_order_final")


class Counted:
    """The mixture's ideal denoiser; counts its calls and keeps the noise levels."""

    def __init__(self) -> None:
        self.sigmas: list[float] = []

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        assert noisy.dtype == sigma.dtype == torch.float32
        assert sigma.shape == (len(noisy), 1, 1, 1)
        self.sigmas.append(float(sigma[0]))
        return MIXTURE(noisy, sigma)


def latents(count: int = 64) -> Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def rms(difference: Tensor) -> float:
    return float(difference.square().mean().sqrt())


def error(sigmas: Tensor, **options: Any) -> float:
    exact = MIXTURE.transport(latents() * sigmas[0], float(sigmas[0]), float(sigmas[-1]))
    return rms(dpm_solver_v3.sample(MIXTURE, latents(), sigmas, **options) - exact)


def observed_order(sigma_min: float = 0.002, sigma_max: float = 80.0, **options: Any) -> float:
    """The slope of log error over log step, fitted."""
    counts = (32, 64, 128, 256)
    levels = [noise_steps(count, sigma_min, sigma_max, spacing="logSNR", to_zero=False) for count in counts]
    errors = [error(sigmas, **options) for sigmas in levels]
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])


# -- order of convergence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lower_order_final", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_predictor_converges_at_its_order(order: int, lower_order_final: bool) -> None:
    options = {"order": order, "corrector": False, "lower_order_final": lower_order_final}
    assert observed_order(**options) == pytest.approx(order, abs=0.25)


class Wrong(DataPrediction):
    """One Taylor term weighs half too much."""

    def __init__(self, term: int):
        self.term = term

    def on(self, device: torch.device) -> Wrong:
        return self

    def step(self, here: float, there: float, terms: int) -> Step:
        decay, weights, bias = super().step(here, there, terms)
        return Step(decay, [weight * (1.5 if k == self.term else 1) for k, weight in enumerate(weights)], bias)


@pytest.mark.parametrize("order", [2, 3])
def test_a_wrong_coefficient_would_lose_an_order(order: int) -> None:
    wrong = observed_order(order=order, corrector=False, statistics=Wrong(order - 1))
    assert wrong == pytest.approx(order - 1, abs=0.35)


def test_a_pseudo_predictor_of_order_3_is_of_order_2() -> None:
    """Its first derivative takes two values alone."""
    assert observed_order(order=3, corrector=False, pseudo_predictor=True) == pytest.approx(2, abs=0.2)


def test_the_corrector_keeps_the_order_and_lowers_the_error() -> None:
    """From σ_max = 3: from 80 the error of order 2 changes its sign at such step counts, and no slope can be fitted."""
    assert observed_order(0.05, 3.0, order=2) == pytest.approx(2, abs=0.2)
    assert observed_order(order=3) > 2.9
    for order in (2, 3):
        sigmas = noise_steps(64, to_zero=False)
        assert error(sigmas, order=order) < error(sigmas, order=order, corrector=False) / 3


def test_a_pseudo_corrector_lifts_order_1_to_2() -> None:
    assert observed_order(order=1, pseudo_corrector=True) == pytest.approx(2, abs=0.2)
    assert observed_order(order=1) == pytest.approx(1, abs=0.1)


def test_a_pseudo_corrector_of_order_4_is_of_order_2() -> None:
    assert observed_order(order=3, pseudo_corrector=True) == pytest.approx(2, abs=0.2)


# -- evaluations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", list(itertools.product([True, False], repeat=len(OPTIONS))))
@pytest.mark.parametrize("order", [1, 2, 3])
def test_each_step_asks_the_denoiser_once(order: int, options: tuple[bool, ...]) -> None:
    for steps, to_zero in itertools.product((1, 2, 3, 7), (True, False)):
        denoise, sigmas = Counted(), noise_steps(steps, to_zero=to_zero)
        chosen: dict[str, Any] = dict(zip(OPTIONS, options, strict=True))
        dpm_solver_v3.sample(denoise, latents(2), sigmas, order=order, **chosen)
        assert denoise.sigmas == pytest.approx(sigmas[:-1].tolist())


@pytest.mark.parametrize("steps", [5, 10, 18, 32])  # Heun's NFE is 2 · steps − 1
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("spacing", ["edm", "logSNR"])
def test_the_error_is_below_half_of_heuns_at_equal_evaluations(spacing: str, order: int, steps: int) -> None:
    asked_heun, asked = Counted(), Counted()
    exact = MIXTURE.transport(latents() * 80, 80, 0)
    by_heun = heun.heun_sample(asked_heun, latents(), noise_steps(steps))
    ours = dpm_solver_v3.sample(asked, latents(), noise_steps(2 * steps - 1, spacing=spacing), order=order)
    assert len(asked.sigmas) == len(asked_heun.sigmas) == 2 * steps - 1
    assert rms(ours - exact) < rms(by_heun - exact) / 2


# -- single steps -----------------------------------------------------------------------------------------------------


def test_order_1_is_the_exponential_euler_step() -> None:
    """For data prediction: x_t = (σ_t/σ_s) x_s + (1 − σ_t/σ_s) D(x_s), which is Euler's step in σ."""
    sigmas = torch.tensor([2.0, 0.5], dtype=torch.float64)
    x = latents() * sigmas[0]
    expected = x / 4 + 3 / 4 * MIXTURE(x, torch.full((1, 1, 1, 1), 2.0))
    torch.testing.assert_close(dpm_solver_v3.sample(MIXTURE, latents(), sigmas, order=1), expected, atol=1e-6, rtol=0)


def test_derivatives_of_a_polynomial_are_exact_and_pseudo_ones_are_divided_differences() -> None:
    offsets = [0.0, -0.5, -1.5]
    values = np.array([3 + 2 * t + 5 * t**2 for t in offsets])
    assert dpm_solver_v3.derivatives(offsets, pseudo=False) @ values == pytest.approx([3, 2, 10])
    between = (values[0] - values[1]) / 0.5
    assert between != pytest.approx(2)
    assert dpm_solver_v3.derivatives(offsets, pseudo=True) @ values == pytest.approx([3, between, 10])


def test_a_last_step_to_sigma_0_is_the_denoised_state() -> None:
    sigmas = noise_steps(6)
    before = dpm_solver_v3.sample(MIXTURE, latents(), sigmas[:-1], corrector=False, lower_order_final=False)
    whole = dpm_solver_v3.sample(MIXTURE, latents(), sigmas, corrector=False, lower_order_final=False)
    torch.testing.assert_close(whole, MIXTURE(before.float(), sigmas[-2].float().reshape(1, 1, 1, 1)))


def test_one_step_is_the_denoised_noise() -> None:
    found = dpm_solver_v3.sample(MIXTURE, latents(), noise_steps(1), order=3)
    torch.testing.assert_close(found, MIXTURE(latents() * 80, torch.full((1, 1, 1, 1), 80.0)))


def test_lower_order_final_ends_with_a_step_of_order_1() -> None:
    sigmas = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    middle = dpm_solver_v3.sample(MIXTURE, latents(), sigmas[:2], order=1)
    last = middle / 2 + MIXTURE(middle.float(), torch.ones(1, 1, 1, 1)) / 2
    found = {on: dpm_solver_v3.sample(MIXTURE, latents(), sigmas, lower_order_final=on) for on in (True, False)}
    torch.testing.assert_close(found[True], last)
    assert rms(found[False] - last) > 1e-3


# -- as Heun's method -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
def test_samples_are_float64_and_do_not_depend_on_the_batch_they_are_in(spacing: str) -> None:
    sigmas = noise_steps(6, spacing=spacing)
    whole = dpm_solver_v3.sample(MIXTURE, latents(4), sigmas, order=3)
    assert whole.dtype == torch.float64
    parts = [dpm_solver_v3.sample(MIXTURE, part, sigmas, order=3) for part in latents(4).split(1)]
    assert torch.equal(torch.cat(parts), whole)


def test_no_graph_is_kept() -> None:
    weight = torch.ones((), requires_grad=True)
    assert not dpm_solver_v3.sample(lambda x, sigma: weight * x, latents(), noise_steps(3)).requires_grad


def test_noise_levels_follow_the_latents_to_their_device() -> None:
    """The device "meta" stands in for a GPU: it refuses to mix with tensors of the CPU."""
    asked: list[tuple[torch.device, torch.device]] = []

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        asked.append((noisy.device, sigma.device))
        return noisy / (1 + sigma**2)

    samples = dpm_solver_v3.sample(denoise, latents().to("meta"), noise_steps(4), order=3)
    assert samples.device.type == "meta"
    assert all(noisy.type == sigma.type == "meta" for noisy, sigma in asked)


@pytest.mark.parametrize("order", [0, 7])
def test_an_unsupported_order_is_refused(order: int) -> None:
    with pytest.raises(ValueError, match=f"1, 2 or 3, not {order}"):
        dpm_solver_v3.sample(MIXTURE, latents(), noise_steps(3), order=order)


@pytest.mark.parametrize("levels", [[], [1.0], [1.0, 2.0]])
@pytest.mark.parametrize("solver", [heun.heun_sample, dpm_solver_v3.sample])
def test_levels_that_do_not_fall_are_refused(solver: Any, levels: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 2 noise levels, in decreasing order"):
        solver(MIXTURE, latents(), torch.tensor(levels))


def test_weights_of_data_prediction_are_the_integrals() -> None:
    width = 0.7
    points, shares = np.polynomial.legendre.leggauss(20)
    away = (points + 1) / 2 * width
    for k, weight in enumerate(DataPrediction().step(1.0, 1.0 + width, 4).weights):
        expected = (shares * width / 2 * np.exp(away - width) * away**k / math.factorial(k)).sum()
        assert weight == pytest.approx(expected, rel=1e-10)
