"""The diffusion family: a tiny class-conditional denoiser, called as EDM's: net(noisy, sigma, one-hot labels)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, silu

from ddo_integrations.demo.data import CHANNELS, CLASSES, RESOLUTION, Digits, to_uint8, to_unit
from ddo_plugin import (
    Denoiser,
    Fakes,
    NoiseLevels,
    SampleGenerators,
    SampleKind,
    Terms,
    diffusion_terms,
    heun_sample,
    noise_steps,
)

FREQUENCIES = 16


class DenoiserMLP(nn.Module):
    """EDM's preconditioning (Eq. 40-41) around a residual MLP over flattened samples."""

    frequencies: Tensor

    def __init__(self, dimensions: int, classes: int, width: int, depth: int, sigma_data: float = 0.5):
        super().__init__()
        self.sigma_data = sigma_data
        self.condition = nn.Sequential(
            nn.Linear(2 * FREQUENCIES + classes, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.enter = nn.Linear(dimensions, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.leave = nn.Linear(width, dimensions)
        self.register_buffer("frequencies", torch.logspace(-1, 1.5, FREQUENCIES))

    def forward(self, noisy: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        x, s = noisy.flatten(1), sigma.reshape(-1, 1)
        norm = (s**2 + self.sigma_data**2).sqrt()
        phase = s.log() / 4 * self.frequencies
        condition = self.condition(torch.cat([phase.cos(), phase.sin(), labels], 1))
        h = self.enter(x / norm)
        for block in self.blocks:
            h = block(h, condition)
        skip, scale = (self.sigma_data / norm) ** 2, s * self.sigma_data / norm
        return (skip * x + scale * self.leave(h)).view_as(noisy)


class _Block(nn.Module):
    """A residual layer; noise level and class set its scale and shift."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(width, 2 * width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulate(condition).chunk(2, 1)
        return h + self.outer(silu(self.inner(self.norm(h) * (1 + scale) + shift)))


class DiffusionFamily:
    """Trains on images; computes likelihoods by Eq. 14-16; samples by Heun's method."""

    kind: SampleKind = "images"
    sampler: Mapping[str, Any] = MappingProxyType({"name": "heun", "steps": 18})
    levels = NoiseLevels(P_mean=-0.8, P_std=1.4)
    clip_grad_norm: float | None = None

    def __init__(self, digits: Digits):
        self.digits = digits

    def network(self, dropout: float = 0.0) -> nn.Module:
        if dropout:
            raise ValueError("the diffusion network has no dropout")
        return DenoiserMLP(CHANNELS * RESOLUTION**2, CLASSES, width=128, depth=2)

    def real_samples(self) -> Tensor:
        return torch.from_numpy(self.digits.images)

    def optimizer(self, network: nn.Module, lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), lr=lr)

    def terms(
        self,
        network: nn.Module,
        reference: nn.Module | None,
        real: Tensor,
        labels: Tensor,
        fakes: Fakes | None,
        paired: bool = False,
    ) -> Terms:
        """Return the terms of a batch: reals and as many fakes, with the same noise for target and reference."""
        n_real, samples = len(real), real
        if fakes is not None:
            fake, fake_labels = fakes.draw(n_real)
            assert fake_labels is not None
            samples, labels = torch.cat([real, fake]), torch.cat([labels, fake_labels])
        denoise_ref = _conditioned(reference, labels) if reference is not None else None
        return diffusion_terms(
            _conditioned(network, labels), denoise_ref, to_unit(samples), n_real, self.levels, paired
        )

    def log_likelihood(self, network: nn.Module, samples: Tensor, labels: Tensor) -> Tensor:
        """Return the surrogate −w‖D − y‖² [N] for one random σ and noise. Callers average over several calls."""
        return diffusion_terms(
            _conditioned(network, labels), None, to_unit(samples), len(samples), self.levels, paired=False
        ).logp_real

    def sample(self, network: nn.Module, labels: Tensor, generators: SampleGenerators) -> Tensor:
        latents = generators.randn(CHANNELS, RESOLUTION, RESOLUTION)
        return to_uint8(heun_sample(_conditioned(network, labels), latents, noise_steps(self.sampler["steps"])))

    def to_images(self, samples: Tensor) -> Tensor:
        return samples


def _conditioned(network: nn.Module, labels: Tensor) -> Denoiser:
    condition = one_hot(labels, CLASSES).to(torch.float32)
    return lambda noisy, sigma: network(noisy, sigma, condition)
