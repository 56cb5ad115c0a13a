"""Heun's method against the probability-flow ODE of a Gaussian, which has a closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ddo_plugin.sampling.solvers import heun
from ddo_plugin.sampling.solvers.noise_levels import noise_steps

SCALE = 0.5


class Gaussian:
    """The ideal denoiser of N(mean, SCALE²); counts its calls."""

    def __init__(self, mean: float = 0.0):
        self.mean, self.calls = mean, 0

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        assert noisy.dtype == sigma.dtype == torch.float32
        assert sigma.shape == (len(noisy), 1, 1, 1)
        self.calls += 1
        return self.mean + (noisy - self.mean) * SCALE**2 / (SCALE**2 + sigma**2)


class PreciseGaussian(Gaussian):
    """The same in float64, so that rounding does not hide the order of the method."""

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        return super().__call__(noisy, sigma).double()


def latents(count: int = 4) -> Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def exact(start: Tensor, sigmas: Tensor) -> Tensor:
    """The ODE contracts a Gaussian's samples along straight lines from the mean."""
    return start.double() * sigmas[0] * SCALE / (SCALE**2 + sigmas[0] ** 2).sqrt()


def error(steps: int, sigma_min: float = 0.002) -> float:
    sigmas = noise_steps(steps, sigma_min)
    return float((heun.heun_sample(PreciseGaussian(), latents(), sigmas) / exact(latents(), sigmas) - 1).abs().max())


def euler_error(steps: int) -> float:
    sigmas = noise_steps(steps)
    x, denoise = latents().double() * sigmas[0], Gaussian()
    for here, there in pairwise(sigmas):
        x = x + (there - here) * (x - denoise(x.float(), here.float().expand(len(x), 1, 1, 1))) / here
    return float((x / exact(latents(), sigmas) - 1).abs().max())


# -- noise levels -----------------------------------------------------------------------------------------------------


def test_noise_levels_fall_from_sigma_max_to_sigma_min_and_then_0() -> None:
    sigmas = noise_steps(18)
    assert sigmas.shape == (19,)
    assert sigmas.dtype == torch.float64
    torch.testing.assert_close(sigmas[[0, -2, -1]], torch.tensor([80, 0.002, 0], dtype=torch.float64))
    assert (sigmas.diff() < 0).all()


def test_noise_levels_are_evenly_spaced_after_the_rho_th_root() -> None:
    roots = noise_steps(11, rho=7)[:-1] ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(10))


def test_one_step_starts_at_sigma_max() -> None:
    assert noise_steps(1).tolist() == pytest.approx([80.0, 0.0])


# -- samples ----------------------------------------------------------------------------------------------------------


def test_samples_of_a_gaussian_have_its_mean_and_variance() -> None:
    start = torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    samples = heun.heun_sample(Gaussian(mean=2.0), start, noise_steps(32))
    assert samples.dtype == torch.float64
    assert float(samples.mean()) == pytest.approx(2.0, abs=0.03)
    assert float(samples.std()) == pytest.approx(SCALE, rel=0.02)


def test_error_shrinks_at_second_order() -> None:
    errors = [error(steps) for steps in (16, 32, 64, 128)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.35)
    assert error(64) < euler_error(64) / 10


def test_eulers_method_would_be_of_first_order() -> None:
    assert math.log2(euler_error(64) / euler_error(128)) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_each_step_but_the_last_asks_the_denoiser_twice(steps: int) -> None:
    denoise = Gaussian()
    heun.heun_sample(denoise, latents(), noise_steps(steps))
    assert denoise.calls == 2 * steps - 1  # 35 for the 18 steps of the paper's CIFAR-10 results


def test_one_step_is_the_denoised_noise() -> None:
    found = heun.heun_sample(Gaussian(), latents(), noise_steps(1))
    expected = Gaussian()(latents() * 80, torch.full((4, 1, 1, 1), 80.0))
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-5)


def test_a_sample_does_not_depend_on_the_batch_it_is_in() -> None:
    sigmas = noise_steps(6)
    whole = heun.heun_sample(Gaussian(), latents(), sigmas)
    assert torch.equal(torch.cat([heun.heun_sample(Gaussian(), part, sigmas) for part in latents().split(1)]), whole)


def test_no_graph_is_kept() -> None:
    weight = torch.ones((), requires_grad=True)
    assert not heun.heun_sample(lambda x, sigma: weight * x, latents(), noise_steps(2)).requires_grad


def test_noise_levels_follow_the_latents_to_their_device() -> None:
    """The device "meta" stands in for a GPU: it refuses to mix with tensors of the CPU."""
    asked: list[tuple[torch.device, torch.device]] = []

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        asked.append((noisy.device, sigma.device))
        return noisy / (1 + sigma**2)

    samples = heun.heun_sample(denoise, latents().to("meta"), noise_steps(3))
    assert samples.device.type == "meta"
    assert all(noisy.type == sigma.type == "meta" for noisy, sigma in asked)


# -- variants ---------------------------------------------------------------------------------------------------------


def test_without_second_order_it_is_eulers_method() -> None:
    sigmas, denoise = noise_steps(64), Gaussian()
    found = heun.heun_sample(denoise, latents(), sigmas, second_order=False)
    assert denoise.calls == 64
    assert float((found / exact(latents(), sigmas) - 1).abs().max()) == pytest.approx(euler_error(64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_has_the_dtype_of_the_levels(dtype: torch.dtype) -> None:
    assert heun.heun_sample(Gaussian(), latents(), noise_steps(4, dtype=dtype)).dtype == dtype


def test_churned_samples_have_the_same_distribution_and_are_others() -> None:
    start = torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    fresh = torch.Generator().manual_seed(2)
    sigmas = noise_steps(64)
    plain = heun.heun_sample(Gaussian(), start, sigmas)
    churned = heun.heun_sample(
        Gaussian(), start, sigmas, churn=heun.Churn(20.0), randn_like=lambda x: torch.randn(x.shape, generator=fresh)
    )
    assert float(churned.std()) == pytest.approx(SCALE, rel=0.03)
    assert float((churned * plain).mean() / (churned.std() * plain.std())) < 0.5


@pytest.mark.parametrize(("everywhere", "draws"), [(False, 2), (True, 5)])
def test_noise_is_fresh_between_two_levels_and_drawn_elsewhere_only_if_asked(everywhere: bool, draws: int) -> None:
    """EDM draws at every step, EDM2 where it is used: later noise of a stream depends on that."""
    sigmas, drawn = torch.tensor([16.0, 8, 4, 2, 1, 0], dtype=torch.float64), []

    def randn_like(x: Tensor) -> Tensor:
        drawn.append(len(x))
        return torch.zeros_like(x)

    heun.heun_sample(Gaussian(), latents(), sigmas, churn=heun.Churn(1.0, 4, 8, 1, everywhere), randn_like=randn_like)
    assert len(drawn) == draws


def test_a_level_rises_by_no_more_than_the_root_of_two() -> None:
    assert heun.Churn(1000.0).factor(torch.tensor(1.0), 10) == pytest.approx(2**0.5 - 1)
    assert heun.Churn(2.0).factor(torch.tensor(1.0), 10) == pytest.approx(0.2)
    assert heun.Churn(2.0, 2, 3).factor(torch.tensor(1.0), 10) == 0


def test_a_raised_level_is_one_that_the_network_knows() -> None:
    asked: list[float] = []

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma[0]))
        return noisy

    sigmas = torch.tensor([8.0, 4, 0], dtype=torch.float64)
    heun.heun_sample(denoise, latents(), sigmas, churn=heun.Churn(0.2), round_sigma=torch.round)
    assert asked == [9, 4, 4]
