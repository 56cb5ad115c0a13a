"""A reference set of a diffusion network: balanced classes, Heun's method, straight into our format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ddo_plugin import compat, refset
from ddo_plugin.likelihood.diffusion import Denoiser
from ddo_plugin.options import pickle_options
from ddo_plugin.progress import progress
from ddo_plugin.records import Command, Reference, RefsetStep
from ddo_plugin.sampling import heun, labels
from ddo_plugin.sampling.generators import SampleGenerators

F = TypeVar("F", bound=Callable[..., Any])


def refset_options(steps: int) -> Callable[[F], F]:
    """What a command that samples a network into a reference set asks for; `steps` is upstream's own number."""
    made = [
        click.Option(["--network"], required=True, metavar="PKL|URL"),
        click.Option(["--out"], type=click.Path(path_type=Path), required=True, help="Folder to write."),
        click.Option(["--count"], type=click.IntRange(min=1), default=50000, show_default=True),
        click.Option(["--seed"], type=click.IntRange(min=0), default=0, show_default=True),
        click.Option(["--steps"], type=click.IntRange(min=1), default=steps, show_default=True, help="Of the sampler."),
        click.Option(["--batch"], type=click.IntRange(min=1), default=64, show_default=True),
        *pickle_options(),
    ]

    def add(function: Any) -> Any:
        function.__click_params__ = [*getattr(function, "__click_params__", []), *reversed(made)]
        return function

    return add


def refset_command(module: str, step: RefsetStep) -> Command:
    """The command line of such a module for a step of self-play."""
    flags = {"network": step.network, "out": step.out, "count": step.count, "seed": step.seed, **step.settings}
    return Command([sys.executable, "-m", module, *(f"--{name}={value}" for name, value in flags.items())])


def make(
    reference: Reference,
    out: Path,
    *,
    count: int,
    seed: int,
    steps: int,
    batch: int,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Sample `reference` into a reference set. Sample i depends on (seed, i) alone.

    Pixels become uint8; latents, which have another number of channels, stay what the network made them.
    """
    device = compat.device()
    net, info = reference.network.to(device), reference.info
    shape = (info.channels, info.resolution, info.resolution)
    pixels = info.channels in (1, 3)
    numbers = torch.from_numpy(labels.uniform(count, info.label_dim)) if info.label_dim else None
    samples = np.empty((count, *shape), dtype=np.uint8 if pixels else np.float32)
    with progress("reference set", count) as bar:
        for first in range(0, count, batch):
            rows = range(first, min(first + batch, count))
            conditions = None
            if numbers is not None:
                conditions = one_hot(numbers[rows.start : rows.stop], info.label_dim).to(device, torch.float32)
            noise = SampleGenerators(seed, rows, device).randn(*shape)
            made = heun.sample(_with_labels(net, conditions), noise, heun.noise_steps(steps).to(device))
            samples[rows.start : rows.stop] = (_to_uint8(made) if pixels else made.float()).cpu().numpy()
            bar.update(len(rows))
    refset.write(
        out,
        samples,
        None if numbers is None else numbers.numpy(),
        kind="images",
        reference={"source": reference.source, "sha256": reference.sha256},
        sampler={"name": "heun", "steps": steps, **(settings or {})},
        seed=seed,
    )


def _with_labels(net: Any, conditions: Tensor | None) -> Denoiser:
    return lambda noisy, sigma: net(noisy, sigma, conditions)


def _to_uint8(images: Tensor) -> Tensor:
    return (images * 127.5 + 128).clip(0, 255).to(torch.uint8)
