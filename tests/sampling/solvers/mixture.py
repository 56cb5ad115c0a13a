"""A Gaussian mixture: a problem with a closed-form denoiser and solution, to judge samplers by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_HALVINGS = 80


@dataclass(frozen=True)
class Mixture:
    """Every coordinate is drawn from Σ w_k N(m_k, s_k²), independently of the others."""

    weights: tuple[float, ...] = (0.3, 0.5, 0.2)
    means: tuple[float, ...] = (-0.6, 0.1, 0.8)
    stds: tuple[float, ...] = (0.2, 0.3, 0.15)

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """The ideal denoiser E[clean | noisy], in float64 whatever it is given."""
        x, sigma = noisy.double()[..., None], sigma.double()[..., None]
        weights, means, stds = self._components(noisy)
        variances = stds**2 + sigma**2
        shares = (weights.log() - variances.log() / 2 - (x - means) ** 2 / (2 * variances)).softmax(-1)
        return (shares * (means + (x - means) * stds**2 / variances)).sum(-1)

    def transport(self, x: Tensor, sigma: float, to: float) -> Tensor:
        """Where the probability-flow ODE carries x from noise σ to noise `to`: in one dimension, to equal quantiles."""
        quantiles = self._cdf(x.double(), sigma)
        reach = 10 * (1 + to) * torch.ones_like(quantiles)
        low, high = -reach, reach
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = self._cdf(middle, to) < quantiles
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def std(self) -> float:
        """Of a coordinate."""
        weights, means, stds = self._components(torch.empty(0))
        return float(((weights * (means**2 + stds**2)).sum() - (weights * means).sum() ** 2).sqrt())

    def _cdf(self, x: Tensor, sigma: float) -> Tensor:
        weights, means, stds = self._components(x)
        return (weights * torch.special.ndtr((x[..., None] - means) / (stds**2 + sigma**2).sqrt())).sum(-1)

    def _components(self, like: Tensor) -> Tensor:
        return torch.tensor([self.weights, self.means, self.stds], dtype=torch.float64, device=like.device)
