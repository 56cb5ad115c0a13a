"""An EDM network as a generator: what generate.py makes of the same seeds, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddo_plugin import compat
from ddo_plugin.likelihood.diffusion import Denoiser
from ddo_plugin.reference import load_as_stored
from ddo_plugin.sampling.diffusion import DiffusionGenerator, Sampler, bound
from ddo_plugin.sampling.generators import SampleGenerators

BATCH = 64  # generate.py's


def generator(source: str, options: Mapping[str, Any]) -> DiffusionGenerator:
    """The network of a snapshot, ready to be sampled."""
    reference = load_as_stored(source, options)
    network: Any = reference.network.to(compat.device())
    sampler = Sampler.of(
        {
            **options,
            "sigma_min": max(options["sigma_min"], network.sigma_min),
            "sigma_max": min(options["sigma_max"], network.sigma_max),
        }
    )

    def solve(denoise: Denoiser, noise: Tensor, streams: SampleGenerators) -> Tensor:
        return sampler.solve(
            denoise, noise, streams, dtype=torch.float64, round_sigma=network.round_sigma, churn_everywhere=True
        )

    settings = {**sampler.settings(), "fp16": bool(network.use_fp16)}
    return DiffusionGenerator(reference, solve, lambda labels: bound(network, labels), settings=settings, batch=BATCH)
