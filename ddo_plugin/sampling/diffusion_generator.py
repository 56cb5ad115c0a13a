"""Denoising networks as generators of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ddo_plugin.checkouts import compat
from ddo_plugin.hooks.streams import SampleGenerators
from ddo_plugin.hooks.types import Reference
from ddo_plugin.objective.diffusion import Denoiser


class DiffusionGenerator:
    """A generator that samples a denoising network. The integration supplies `solve` and, for latents, `decode`."""

    kind: Literal["images"] = "images"

    def __init__(
        self,
        reference: Reference,
        solve: Callable[[Denoiser, Tensor, SampleGenerators], Tensor],
        denoiser: Callable[[Tensor | None], Denoiser],
        *,
        settings: Mapping[str, Any],
        batch: int,
        decode: Callable[[Tensor], Tensor] | None = None,
    ):
        """`denoiser` binds one-hot classes [N, K] to the network. Without `decode` the samples are pixels in uint8."""
        info = reference.info
        self._solve, self._denoiser, self._decode = solve, denoiser, decode
        self.network, self.device = reference.network, compat.upstream_device()
        self.reference = {"source": reference.source, "sha256": reference.sha256}
        self.shape = (info.channels, info.resolution, info.resolution)
        self.dtype = "float32" if decode else "uint8"
        self.classes = info.label_dim or 0
        self.settings, self.batch = settings, batch

    @torch.no_grad()
    def sample(self, streams: SampleGenerators, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        noise, conditions = streams.randn(*self.shape), None
        if self.classes:
            drawn = streams.randint(self.classes)  # drawn even if unused, because it advances the streams
            labels = drawn if labels is None else labels.to(self.device)
            conditions = one_hot(labels, self.classes).to(torch.float32)
        samples = self._solve(self._denoiser(conditions), noise, streams)
        streams.check(samples)
        return samples.to(torch.float32) if self._decode else _to_uint8(samples), labels if self.classes else None

    @torch.no_grad()
    def images(self, samples: Tensor) -> Tensor:
        return self._decode(samples) if self._decode else samples


def bind_conditions(network: Any, conditions: Tensor | None) -> Denoiser:
    """Bind conditions to a network. All samples share a noise level, which is passed once per batch, like upstream."""
    return lambda noisy, sigma: network(noisy, sigma[:1], conditions)


def _to_uint8(images: Tensor) -> Tensor:
    return (images * 127.5 + 128).clip(0, 255).to(torch.uint8)
