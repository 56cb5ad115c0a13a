"""Diffusion log-ratios: Gaussian models, whose ideal denoiser and likelihood are known in closed form, as the judge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ddo_plugin.objective.ddo import DDO, Terms
from ddo_plugin.objective.diffusion import NoiseLevels, diffusion_terms, log_likelihood, log_ratio

LEVELS = NoiseLevels()


def ideal_denoiser(noisy: Tensor, sigma: Tensor, scale: float) -> Tensor:
    """E[y | y + σε] for y ~ N(0, scale²)."""
    return noisy * scale**2 / (scale**2 + sigma**2)


def exact_log_ratio(clean: Tensor, scale: float, scale_ref: float) -> Tensor:
    """log N(y; 0, scale²) − log N(y; 0, scale_ref²)."""
    return math.log(scale_ref / scale) - clean**2 / 2 * (scale**-2 - scale_ref**-2)


def draws(clean: Tensor, scale: float, scale_ref: float) -> tuple[Tensor, Tensor]:
    """Every (σ, ε) of a quadrature rule: probabilities [K] and one-draw log-ratios [K, N] of samples [N].

    log σ is uniform over a wide range and the weight is σ⁻² / p(log σ), with which the pointwise I-MMSE relation makes
    E[r] the log-likelihood ratio itself: Eq. 2 and 14 without the surrogate. ε takes the two values ±1, with which
    expectations of quadratics in ε are exact.
    """
    log_sigma = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    density = 1 / (log_sigma[-1] - log_sigma[0])
    sigma = log_sigma.exp().repeat(2)
    noise = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat_interleave(len(log_sigma))
    probability = torch.full_like(sigma, 1 / len(sigma))

    levels = sigma[:, None, None]
    noisy = clean[:, None] + levels * noise[:, None, None]  # [K, N, 1]
    estimates = [ideal_denoiser(noisy, levels, s).reshape(-1, 1) for s in (scale, scale_ref)]
    repeated = clean.repeat(len(sigma))[:, None]
    weight = (sigma**-2 / density).repeat_interleave(len(clean))[:, None]
    return probability, log_ratio(estimates[0], estimates[1], repeated, weight).view(len(sigma), len(clean))


CLEAN = torch.tensor([-3.0, -1.0, -0.2, 0.0, 0.5, 2.0], dtype=torch.float64)


# -- what the log-ratio means (Eq. 2, 14-16, 43) ----------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "scale_ref"), [(0.7, 1.0), (1.0, 0.7), (0.5, 0.6), (2.0, 0.5)])
def test_expected_log_ratio_of_gaussians_is_the_closed_form(scale: float, scale_ref: float) -> None:
    probability, r = draws(CLEAN, scale, scale_ref)
    exact = exact_log_ratio(CLEAN, scale, scale_ref)
    torch.testing.assert_close(probability @ r, exact, rtol=1e-3, atol=1e-3)
    assert (exact.abs() > 0.05).any()  # where it is not zero anyway


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (4, 0.5)])
def test_eq_16_one_draw_bounds_the_exact_loss_from_above(alpha: float, beta: float) -> None:
    """Jensen: σ's average inside the sigmoid is the exact loss, outside it is what one draw estimates."""
    scale, scale_ref, data_scale = 0.8, 1.0, 0.7
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(15))
    weights = weights / weights.sum()

    def loss(r_real: Tensor, r_fake: Tensor) -> Tensor:
        """[..., N] log-ratios at the quadrature nodes of p_data and p_ref -> Eq. 13 [...]."""
        outcome = DDO(alpha, beta)(Terms(r_real, r_real=r_real, r_fake=r_fake))
        return (outcome.real + outcome.fake) @ weights

    real, fake = data_scale * nodes, scale_ref * nodes
    exact_real, exact_fake = (exact_log_ratio(x, scale, scale_ref) for x in (real, fake))
    exact = loss(exact_real, exact_fake)
    (probability, r_real), (_, r_fake) = draws(real, scale, scale_ref), draws(fake, scale, scale_ref)
    bound = probability @ loss(r_real, r_fake)
    assert bound > exact + 0.01
    assert (r_real > exact_real).any()  # so it is the average that bounds, not each draw


def test_eq_43_weight_turns_denoising_errors_into_those_of_the_network() -> None:
    """w ‖D − y‖² = ‖F − F_target‖² with EDM's preconditioning (Eq. 40-42)."""
    torch.manual_seed(0)
    clean, noise, f, f_ref = torch.randn(4, 5, 3, 2, 2, dtype=torch.float64).unbind(0)
    sigma = torch.logspace(-2, 1.5, 5, dtype=torch.float64).view(5, 1, 1, 1)
    noisy, sd = clean + sigma * noise, LEVELS.sigma_data
    skip, out = sd**2 / (sigma**2 + sd**2), sigma * sd / (sigma**2 + sd**2).sqrt()
    target = (sd**2 * noise - sigma * clean) / (-sd * (sigma**2 + sd**2).sqrt())  # what D = y asks of F
    torch.testing.assert_close(skip * noisy + out * target, clean)

    error, error_ref = ((x - target).square().sum((1, 2, 3)) for x in (f, f_ref))
    denoised, denoised_ref, weight = skip * noisy + out * f, skip * noisy + out * f_ref, LEVELS.weight(sigma)
    torch.testing.assert_close(log_ratio(denoised, denoised_ref, clean, weight), error_ref - error)
    torch.testing.assert_close(log_likelihood(denoised, clean, weight), -error)


def test_log_ratio_is_antisymmetric_and_favours_the_better_denoiser() -> None:
    torch.manual_seed(0)
    clean, off = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64).unbind(0)
    weight = torch.ones(4, 1, 1, 1, dtype=torch.float64)
    r = log_ratio(clean + 0.1 * off, clean + off, clean, weight)
    assert (r > 0).all()
    torch.testing.assert_close(log_ratio(clean + off, clean + 0.1 * off, clean, weight), -r)


def test_log_ratio_sums_over_all_dimensions() -> None:
    """β scales like 1/d because r is a sum: 12 dimensions, each adding w·(1² − 0.5²)."""
    clean, weight = torch.zeros(2, 3, 2, 2), torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    r = log_ratio(clean + 0.5, clean + 1, clean, weight)
    torch.testing.assert_close(r, torch.tensor([12 * 0.75, 2 * 12 * 0.75]))


# -- its digits -------------------------------------------------------------------------------------------------------


def naive_log_ratio(denoised: Tensor, denoised_ref: Tensor, clean: Tensor, weight: Tensor) -> Tensor:
    return log_likelihood(denoised, clean, weight) - log_likelihood(denoised_ref, clean, weight)


def sum_first_log_ratio(denoised: Tensor, denoised_ref: Tensor, clean: Tensor, weight: Tensor) -> Tensor:
    return -(weight * (denoised - denoised_ref) * (denoised + denoised_ref - 2 * clean)).flatten(1).sum(1)


@pytest.mark.parametrize("sigma", [1e-4, 1e-2, 1.0, 80.0])
def test_log_ratio_keeps_its_digits_at_every_noise_level(sigma: float) -> None:
    torch.manual_seed(0)
    levels = torch.full((16, 1, 1, 1), sigma)
    weight, clean = LEVELS.weight(levels), torch.rand(16, 3, 32, 32) * 2 - 1
    spread = weight.rsqrt()  # what a network's output is scaled by
    denoised = clean + 0.3 * spread * torch.randn_like(clean)
    denoised_ref = denoised + 1e-4 * spread * torch.randn_like(clean)
    inputs = (denoised, denoised_ref, clean, weight)

    exact = log_ratio(*(x.double() for x in inputs))

    def error(r: Tensor) -> float:
        return float((r - exact).square().mean().sqrt() / exact.square().mean().sqrt())

    assert error(log_ratio(*inputs)) < 1e-6
    assert error(naive_log_ratio(*inputs)) > 1e-3
    if sigma < 1e-3:  # the networks' sum rounds at the size of the image, not of the noise
        assert error(sum_first_log_ratio(*inputs)) > 1e-4


def test_log_ratio_is_exactly_zero_where_the_networks_agree() -> None:
    torch.manual_seed(0)
    denoised, clean = torch.randn(2, 8, 3, 8, 8).unbind(0)
    assert (log_ratio(denoised, denoised.clone(), clean, LEVELS.weight(LEVELS.sample(clean))) == 0).all()


def test_gradcheck() -> None:
    torch.manual_seed(0)
    denoised, denoised_ref, clean = torch.randn(3, 3, 2, 2, dtype=torch.float64).unbind(0)
    weight = torch.rand(3, 1, 1, dtype=torch.float64)
    denoised.requires_grad_()
    assert torch.autograd.gradcheck(lambda d: log_ratio(d, denoised_ref, clean, weight), denoised)
    assert torch.autograd.gradcheck(lambda d: log_likelihood(d, clean, weight), denoised)


# -- one batch --------------------------------------------------------------------------------------------------------


class Network(torch.nn.Module):
    """A denoiser with one weight, which remembers what it was asked."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        self.asked.append((noisy, sigma))
        return self.scale * noisy / (1 + sigma**2)


def batch() -> Tensor:
    return torch.randn(10, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_terms_ask_both_networks_once_about_the_same_noisy_samples() -> None:
    target, reference = Network(1.0), Network(0.9)
    diffusion_terms(target, reference, batch(), 6, LEVELS, paired=False)
    assert len(target.asked) == len(reference.asked) == 1
    for mine, theirs in zip(target.asked[0], reference.asked[0], strict=True):
        assert torch.equal(mine, theirs)
    noisy, sigma = target.asked[0]
    assert sigma.shape == (10, 1, 1, 1)
    assert len(sigma.unique()) == 10
    noise = (noisy - batch()) / sigma
    assert 0.8 < noise.std() < 1.2
    assert len(noise.flatten().unique()) == noise.numel()


def test_paired_reals_and_fakes_share_noise_level_and_noise() -> None:
    target = Network(1.0)
    diffusion_terms(target, Network(0.9), batch(), 5, LEVELS, paired=True)
    noisy, sigma = target.asked[0]
    assert torch.equal(sigma[:5], sigma[5:])
    assert len(sigma.unique()) == 5
    noise = (noisy - batch()) / sigma
    torch.testing.assert_close(noise[:5], noise[5:], rtol=1e-3, atol=1e-3)
    assert 0.8 < noise.std() < 1.2


def test_paired_noise_needs_as_many_fakes_as_reals() -> None:
    with pytest.raises(ValueError, match="paired noise needs as many fakes as reals, not 4 and 6"):
        diffusion_terms(Network(1.0), Network(0.9), batch(), 6, LEVELS, paired=True)


def test_terms_split_reals_from_fakes() -> None:
    target, reference = Network(1.0), Network(0.9)
    terms = diffusion_terms(target, reference, batch(), 6, LEVELS, paired=False)
    noisy, sigma = target.asked[0]
    weight = LEVELS.weight(sigma)
    logp, logp_ref = (log_likelihood(n(noisy, sigma), batch(), weight) for n in (target, reference))
    assert terms.r_real is not None and terms.r_fake is not None and terms.logp_ref_real is not None
    torch.testing.assert_close(terms.logp_real, logp[:6])
    torch.testing.assert_close(terms.logp_ref_real, logp_ref[:6])
    torch.testing.assert_close(terms.logp_fake, logp[6:])
    torch.testing.assert_close(terms.logp_ref_fake, logp_ref[6:])
    torch.testing.assert_close(terms.r_real, (logp - logp_ref)[:6], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(terms.r_fake, (logp - logp_ref)[6:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("paired", [True, False])
def test_equal_networks_give_a_loss_of_exactly_one_plus_alpha_times_ln2(paired: bool) -> None:
    terms = diffusion_terms(Network(0.8), Network(0.8), batch(), 5, LEVELS, paired)
    ln2 = torch.tensor(math.log(2))
    assert torch.equal(DDO(3, 0.05)(terms).per_sample(), (ln2 + 3 * ln2).expand(5))


def test_gradients_reach_the_target_and_never_the_reference() -> None:
    target, reference = Network(1.0), Network(0.9)
    DDO(1, 0.1)(diffusion_terms(target, reference, batch(), 5, LEVELS, paired=True)).mean().backward()
    assert target.scale.grad is not None and target.scale.grad != 0
    assert reference.scale.grad is None


def test_terms_without_a_reference_hold_the_likelihood_alone() -> None:
    terms = diffusion_terms(Network(1.0), None, batch(), 10, LEVELS, paired=True)
    assert terms.logp_real.shape == (10,)
    assert terms.r_real is terms.r_fake is terms.logp_ref_real is None


@pytest.mark.parametrize("paired", [True, False])
def test_noise_is_decided_by_torchs_global_seed(paired: bool) -> None:
    def rewards(seed: int) -> Tensor:
        torch.manual_seed(seed)
        terms = diffusion_terms(Network(1.0), Network(0.9), batch(), 5, LEVELS, paired)
        assert terms.r_real is not None
        return terms.r_real

    assert torch.equal(rewards(0), rewards(0))
    assert not torch.equal(rewards(0), rewards(1))


def test_noise_levels_are_log_normal() -> None:
    torch.manual_seed(0)
    log_sigma = NoiseLevels(P_mean=-0.8, P_std=1.6).sample(torch.empty(40_000, 3, 1, 1)).log()
    assert log_sigma.shape == (40_000, 1, 1, 1)
    assert float(log_sigma.mean()) == pytest.approx(-0.8, abs=0.03)
    assert float(log_sigma.std()) == pytest.approx(1.6, abs=0.03)
    within = (log_sigma + 0.8).abs() < 1.6
    assert float(within.float().mean()) == pytest.approx(0.6827, abs=0.01)


# -- the listing in Appendix D of the paper, from its equations alone --------------------------------------------------


def numpy_network(noisy: np.ndarray, sigma: np.ndarray, scale: float) -> np.ndarray:
    """The same as `Network`."""
    return scale * noisy / (1 + sigma**2)


def appendix_d(
    real: np.ndarray,
    fake: np.ndarray,
    sigma: np.ndarray,
    noise: np.ndarray,
    scales: tuple[float, float],
    alpha: float,
    beta: float,
) -> tuple[np.float64, np.ndarray]:
    """Return the loss and its gradient with respect to D_θ of the reals and then of the fakes."""
    weight = (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2

    def residuals(clean: np.ndarray) -> list[np.ndarray]:
        return [numpy_network(clean + sigma * noise, sigma, scale) - clean for scale in scales]

    def log_ratio_of(clean: np.ndarray) -> np.ndarray:
        ours, references = ((weight * residual**2).sum((1, 2, 3)) for residual in residuals(clean))
        return references - ours

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return np.exp(-np.logaddexp(0, -x))

    r_real, r_fake = log_ratio_of(real), log_ratio_of(fake)
    loss = np.mean(np.logaddexp(0, -beta * r_real) + alpha * np.logaddexp(0, beta * r_fake))  # −log σ(x)
    by_r = np.stack([-beta * sigmoid(-beta * r_real), alpha * beta * sigmoid(beta * r_fake)]) / len(real)
    slopes = [by_r[i].reshape(-1, 1, 1, 1) * -2 * weight * residuals(x)[0] for i, x in enumerate((real, fake))]
    return loss, np.concatenate(slopes)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.05), (4.0, 0.05), (2.0, 1.0)])
def test_paired_loss_and_gradient_are_those_of_appendix_d(alpha: float, beta: float) -> None:
    torch.manual_seed(0)
    clean = torch.randn(16, 3, 4, 4, dtype=torch.float64)
    target, reference = Network(0.8).double(), Network(0.7).double()
    outputs: list[Tensor] = []

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        outputs.append(target(noisy, sigma))
        outputs[0].retain_grad()
        return outputs[0]

    loss = DDO(alpha, beta)(diffusion_terms(denoise, reference, clean, 8, LEVELS, paired=True)).mean()
    loss.backward()
    gradient = outputs[0].grad
    assert gradient is not None

    real, fake = clean.numpy()[:8], clean.numpy()[8:]
    noisy, sigma = (asked.numpy()[:8].astype(np.float64) for asked in target.asked[0])  # of the reals alone
    scales = (target.scale.item(), reference.scale.item())
    expected_loss, expected_gradient = appendix_d(real, fake, sigma, (noisy - real) / sigma, scales, alpha, beta)
    assert loss.item() == pytest.approx(expected_loss, rel=1e-6)
    np.testing.assert_allclose(
        gradient.numpy(), expected_gradient, rtol=1e-6, atol=1e-6 * np.abs(expected_gradient).max()
    )
