"""The paper's Figure 1 as a toy: a mixture in the plane, and a diffusion network that is too small for it."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from ddo_integrations.demo.diffusion import DenoiserMLP
from ddo_plugin import (
    DDO,
    MLE,
    Denoiser,
    NoiseLevels,
    Objective,
    Place,
    Progress,
    atomic_write,
    diffusion_terms,
    heun_sample,
    in_one_line,
    interruptible,
    noise_steps,
    progress,
)

MODES, RADIUS, STD = 8, 0.8, 0.06
WIDTH, BATCH, FAKES, SHOWN = 12, 256, 8000, 20000
LEVELS = NoiseLevels()
ALPHA, BETA = 1.0, 0.1


def centers() -> Tensor:
    """Return the centers of the modes, [8, 2]."""
    angles = torch.arange(MODES) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], 1)


def real(count: int) -> Tensor:
    """Draw points [count, 2] from a ring of narrow Gaussians."""
    return centers()[torch.randint(MODES, (count,))] + STD * torch.randn(count, 2)


def near_a_mode(points: Tensor) -> float:
    """Return the share of points within three standard deviations of a mode. For the data it is 98.9 %."""
    return float((torch.cdist(points, centers()).min(1).values < 3 * STD).float().mean())


def denoiser(network: nn.Module) -> Denoiser:
    """Return the network as a denoiser without classes."""
    return lambda noisy, sigma: network(noisy, sigma, noisy.new_ones(len(noisy), 1))


def sample(network: nn.Module, count: int, seed: int) -> Tensor:
    """Draw samples [count, 2] by Heun's method."""
    torch.manual_seed(seed)
    return heun_sample(denoiser(network), torch.randn(count, 2), noise_steps(18)).float()


def train(
    network: nn.Module,
    objective: Objective,
    steps: int,
    lr: float,
    seed: int,
    bar: Progress,
    fakes: Tensor | None = None,
) -> nn.Module:
    """Train a copy of the network against the frozen original, and return the moving average of its weights."""
    torch.manual_seed(seed)
    target, average = copy.deepcopy(network), copy.deepcopy(network)
    optimizer = torch.optim.Adam(target.parameters(), lr=lr)
    reference = denoiser(network) if objective.trains_on == "both" else None
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, 2 - 2 * step / steps)
        samples = real(BATCH)
        if fakes is not None:
            samples = torch.cat([samples, fakes[torch.randint(len(fakes), (BATCH,))]])
        outcome = objective(diffusion_terms(denoiser(target), reference, samples, BATCH, LEVELS, paired=True))
        optimizer.zero_grad()
        outcome.mean().backward()
        optimizer.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), target.parameters(), strict=True):
                mean.lerp_(value, 0.02)
        bar.update()
    return average


@click.command()
@click.option("--out", type=Place(dir_okay=False), required=True, help=".npz file to write.")
@click.option(
    "--base-steps", type=click.IntRange(min=1), default=3000, show_default=True, help="Training steps of the base."
)
@click.option("--steps", type=click.IntRange(min=1), default=800, show_default=True, help="Finetuning steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@interruptible()
@in_one_line()
def main(out: Path, base_steps: int, steps: int, seed: int) -> None:
    """Train on the mixture, then finetune by DDO and by a control.

    The base and the control are trained by maximum likelihood. The .npz file holds samples of all three networks.
    """
    torch.manual_seed(seed)
    with progress("toy", base_steps + 2 * steps) as bar:
        base = train(DenoiserMLP(2, 1, WIDTH, 1), MLE(), base_steps, 3e-3, seed, bar)
        control = train(base, MLE(), steps, 1e-3, seed, bar)
        ddo = train(base, DDO(ALPHA, BETA), steps, 1e-3, seed, bar, sample(base, FAKES, seed + 1))
    torch.manual_seed(seed)
    points = {"data": real(SHOWN)} | {
        name: sample(network, SHOWN, seed + 2) for name, network in (("base", base), ("control", control), ("ddo", ddo))
    }
    arrays: dict[str, Any] = {name: cloud.numpy() for name, cloud in points.items()}
    arrays |= {f"near_{name}": near_a_mode(cloud) for name, cloud in points.items()}
    with atomic_write(out) as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
