"""EDM networks as generators. For the same seeds the images equal those of generate.py, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddo_integrations.edm import ablation
from ddo_integrations.nvlabs import execution
from ddo_plugin import (
    Denoiser,
    DiffusionGenerator,
    SampleGenerators,
    Sampler,
    Upstream,
    bind_conditions,
    load_as_stored,
    upstream_device,
)

BATCH = 64  # the default of generate.py
Solve = Callable[[Denoiser, Tensor, SampleGenerators], Tensor]


def generator(source: str, options: Mapping[str, Any], upstream: Upstream) -> DiffusionGenerator:
    """Load the network of a snapshot, ready for sampling."""
    reference = load_as_stored(source, options, upstream)
    network: Any = reference.network
    forward = execution.prepare(network, options, upstream_device())
    shape = (network.img_channels, network.img_resolution, network.img_resolution)
    solve, settings = solver(options, network, shape)
    settings |= execution.settings(network, options)
    return DiffusionGenerator(
        reference, solve, lambda labels: bind_conditions(forward, labels), settings=settings, batch=BATCH
    )


def solver(options: Mapping[str, Any], network: Any, shape: tuple[int, ...]) -> tuple[Solve, dict[str, Any]]:
    """Return the solver that generate.py would choose, and its settings for a manifest."""
    if ablation.asked(options):
        ablated = ablation.AblationSampler.of(options, network, shape)
        return partial(ablated.solve, round_sigma=network.round_sigma), ablated.settings()
    sampler = Sampler.of(options, shape, (network.sigma_min, network.sigma_max))
    ours = partial(sampler.solve, dtype=torch.float64, round_sigma=network.round_sigma, churn_everywhere=True)
    return ours, sampler.settings()
