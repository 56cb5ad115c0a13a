"""Log-ratios of diffusion models with EDM's preconditioning (Eq. 14-16 and 43).

    r = −w(σ) (‖D_θ − y‖² − ‖D_ref − y‖²),   w(σ) = (σ² + σ_d²) / (σ σ_d)²

with the same σ and the same noise for both networks. The difference of two large sums would lose the digits that the
loss needs. It is therefore computed as a² − b² = (a − b)(a + b) with the residuals a = D_θ − y and b = D_ref − y, which
is exactly 0 where the networks agree. Each residual is computed separately, because D_θ + D_ref − 2y rounds at the
size of the image: at σ = 1e-4 it keeps fewer digits than the difference of the sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddo_plugin.objective.ddo import Terms

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (noisy [N, ...], sigma [N, 1, ...]) -> estimate of the clean sample


@dataclass(frozen=True)
class NoiseLevels:
    """Noise levels log σ ~ N(P_mean, P_std²), weighted so that the loss of F_θ has unit weight (Eq. 43)."""

    P_mean: float = -1.2
    P_std: float = 1.2
    sigma_data: float = 0.5

    def sample(self, like: Tensor) -> Tensor:
        """Draw a σ for each sample from torch's global generator, shaped [N, 1, ...] to broadcast over `like`."""
        shape = [len(like)] + [1] * (like.ndim - 1)
        return (torch.randn(shape, device=like.device) * self.P_std + self.P_mean).exp()

    def weight(self, sigma: Tensor) -> Tensor:
        """Return w(σ) = (σ² + σ_d²) / (σ σ_d)²."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


def log_ratio(denoised: Tensor, denoised_ref: Tensor, clean: Tensor, weight: Tensor) -> Tensor:
    """Return [N] Eq. 15 in the factored form: −w Σ (D_θ − D_ref) [(D_θ − y) + (D_ref − y)]."""
    residuals = (denoised - clean) + (denoised_ref - clean)
    return -(weight * (denoised - denoised_ref) * residuals).flatten(1).sum(1)


def log_likelihood(denoised: Tensor, clean: Tensor, weight: Tensor) -> Tensor:
    """Return [N] Eq. 2 up to a constant: −w ‖D − y‖², for one draw of σ and noise."""
    return -(weight * (denoised - clean).square()).flatten(1).sum(1)


def draw_noise(clean: Tensor, n_real: int, levels: NoiseLevels, paired: bool) -> tuple[Tensor, Tensor]:
    """Draw σ and noise for each sample. If `paired`, the i-th real sample and the i-th fake share both."""
    if not paired or len(clean) == n_real:
        return levels.sample(clean), torch.randn_like(clean)
    if len(clean) != 2 * n_real:
        raise ValueError(f"paired noise needs as many fakes as reals, not {len(clean) - n_real} and {n_real}")
    sigma, noise = draw_noise(clean[:n_real], n_real, levels, paired)
    return torch.cat([sigma, sigma]), torch.cat([noise, noise])


def diffusion_terms(
    denoise: Denoiser, denoise_ref: Denoiser | None, clean: Tensor, n_real: int, levels: NoiseLevels, paired: bool
) -> Terms:
    """Add noise to the batch once, run target and reference on it, and return the terms of an objective.

    `clean` holds n_real real samples followed by any number of fakes; with `paired` noise, by n_real fakes or none. The
    target runs once on all of them, because networks that change their weights in forward() (EDM2) cannot run twice
    before a backward pass. The reference runs first, when the activations of the target do not take memory yet.
    """
    sigma, noise = draw_noise(clean, n_real, levels, paired)
    weight = levels.weight(sigma)
    noisy = clean + sigma * noise
    with torch.no_grad():  # not inference_mode: the backward pass of log_ratio needs the reference's output
        denoised_ref = None if denoise_ref is None else denoise_ref(noisy, sigma)
    denoised = denoise(noisy, sigma)
    logp_real = log_likelihood(denoised[:n_real], clean[:n_real], weight[:n_real])
    if denoised_ref is None:
        return Terms(logp_real)
    with torch.no_grad():
        logp_fake = log_likelihood(denoised[n_real:], clean[n_real:], weight[n_real:])
        logp_ref = log_likelihood(denoised_ref, clean, weight)
    r = log_ratio(denoised, denoised_ref, clean, weight)
    return Terms(logp_real, logp_ref[:n_real], r[:n_real], r[n_real:], logp_fake, logp_ref[n_real:])
