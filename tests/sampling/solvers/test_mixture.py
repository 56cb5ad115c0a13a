"""The closed forms that solvers are judged by, held to what defines them."""

from __future__ import annotations

import pytest
import torch

from tests.sampling.solvers.mixture import Mixture

mixture = Mixture()


def test_the_denoiser_is_the_mean_of_the_clean_given_the_noisy() -> None:
    generator = torch.Generator().manual_seed(0)
    count, sigma, at = 4_000_000, 0.4, 0.25
    kind = torch.multinomial(torch.tensor(mixture.weights), count, replacement=True, generator=generator)
    clean = torch.tensor(mixture.means)[kind] + torch.tensor(mixture.stds)[kind] * torch.randn(
        count, generator=generator
    )
    noisy = clean + sigma * torch.randn(count, generator=generator)
    expected = clean[(noisy - at).abs() < 0.01].mean().double()
    torch.testing.assert_close(mixture(torch.tensor(at), torch.tensor(sigma)), expected, atol=0.005, rtol=0)


def test_transport_from_pure_noise_draws_from_the_mixture() -> None:
    start = 1000 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    samples = mixture.transport(start, 1000, 0)
    assert float(samples.std()) == pytest.approx(mixture.std(), rel=0.01)
    assert float((samples < -0.25).double().mean()) == pytest.approx(0.349, abs=0.005)  # Σ w Φ((−0.25 − m) / s)


def test_transport_solves_the_probability_flow_ode() -> None:
    """dx/dσ = (x − D(x; σ)) / σ, by central differences."""
    start, width = torch.linspace(-1, 1, 9, dtype=torch.float64), 1e-4
    for sigma in (0.1, 0.5, 2.0):
        moved = [mixture.transport(start, sigma, to) for to in (sigma - width, sigma + width)]
        slope = (start - mixture(start, torch.tensor(sigma, dtype=torch.float64))) / sigma
        torch.testing.assert_close((moved[1] - moved[0]) / (2 * width), slope, atol=1e-6, rtol=1e-5)


def test_transport_there_and_back_is_the_identity() -> None:
    start = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
    torch.testing.assert_close(mixture.transport(mixture.transport(start, 0.3, 80), 80, 0.3), start)
