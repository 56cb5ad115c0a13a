"""The demo's "upstream": a plain likelihood training script. Two of its lines call the plugin."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import torch
from torch import Tensor, nn

from ddo_integrations.demo.families import Family, build, save_snapshot
from ddo_integrations.demo.names import FAMILIES
from ddo_plugin import Place, atomic_write, in_one_line, inject, interruptible, progress

CHECKPOINT = "training-state.pt"


@click.command()
@click.option("--family", type=click.Choice(FAMILIES), required=True, help="Model family to train.")
@click.option("--data", type=Place(exists=True, file_okay=False), required=True, help="Folder of prepared digits.")
@click.option("--outdir", type=Place(file_okay=False), required=True, help="Folder to write.")
@click.option("--steps", type=click.IntRange(min=1), required=True, help="Optimizer steps.")
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True, help="Real images for each step.")
@click.option(
    "--lr", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True, help="Learning rate."
)
@click.option(
    "--warmup", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Share of the steps that warm up."
)
@click.option(
    "--decay",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the steps, at the end, that decay.",
)
@click.option(
    "--ema",
    type=click.FloatRange(min=0),
    default=50,
    show_default=True,
    help="Half-life of the moving average in steps; 0 disables.",
)
@click.option("--dropout", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Dropout probability.")
@click.option("--snap", type=click.IntRange(min=1), help="Steps between snapshots.  [default: only the last step]")
@click.option(
    "--dump", type=click.IntRange(min=1), default=500, show_default=True, help="Steps between training states."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@inject.options("digits")
@interruptible()
@in_one_line()
def main(**options: Any) -> None:
    """Train a tiny likelihood model of the digits."""
    opts = SimpleNamespace(**options)
    family = build(opts.family, opts.data)
    torch.manual_seed(opts.seed)
    config: dict[str, Any] = {
        "family": family,
        "network": family.network(opts.dropout),
        "loss": MaximumLikelihood(family),
        "dump": opts.dump,
        "on_snapshot": None,
        "on_checkpoint": None,
    }
    inject.configure("digits", config, options)
    training_loop(SimpleNamespace(**config), opts)


class MaximumLikelihood:
    """The native loss: the mean of −log p_θ over a batch of real samples."""

    def __init__(self, family: Family):
        self.family = family

    def __call__(self, network: nn.Module, real: Tensor, labels: Tensor, step: int) -> Tensor:
        return -self.family.terms(network, None, real, labels, None).logp_real.mean()


def training_loop(c: SimpleNamespace, opts: SimpleNamespace) -> None:
    """Train by Adam with warmup and decay, a moving average, snapshots and checkpoints for an exact resume."""
    opts.outdir.mkdir(parents=True, exist_ok=True)
    real, labels = c.family.real_samples(), torch.from_numpy(c.family.digits.labels)
    network, average = c.network.train(), copy.deepcopy(c.network).requires_grad_(False)
    optimizer = c.family.optimizer(network, opts.lr)
    keep = 0.5 ** (1 / opts.ema) if opts.ema else 0.0
    state = _State(opts.outdir / CHECKPOINT, network, average, optimizer)
    first = state.load()
    with progress(f"{opts.family} training", opts.steps, first) as bar:
        for step in range(first, opts.steps):
            rows = torch.randint(len(real), (opts.batch,))
            loss = c.loss(network, real[rows], labels[rows], step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if c.family.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(network.parameters(), c.family.clip_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = opts.lr * _schedule(step, opts.steps, opts.warmup, opts.decay)
            optimizer.step()
            _average(average, network, keep)
            done = step + 1
            if done == opts.steps or (opts.snap and done % opts.snap == 0):
                _snapshot(average, opts.family, opts.outdir, done, c.on_snapshot)
            if done % c.dump == 0 or done == opts.steps:
                if c.on_checkpoint is not None:
                    c.on_checkpoint(done)
                state.save(done)
            bar.update()
    if c.on_checkpoint is None:
        state.path.unlink(missing_ok=True)


def _schedule(step: int, steps: int, warmup: float, decay: float) -> float:
    """Return the factor of the learning rate: a linear rise over the share `warmup`, a linear fall over `decay`."""
    rise = min(1.0, (step + 1) / (warmup * steps)) if warmup else 1.0
    fall = min(1.0, (steps - step) / (decay * steps)) if decay else 1.0
    return rise * fall


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, keep: float) -> None:
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)


def _snapshot(
    average: nn.Module, family: str, outdir: Path, step: int, on_snapshot: Callable[[Path, int], None] | None
) -> None:
    path = outdir / f"network-{step:06d}.safetensors"
    save_snapshot(average, family, path)
    if on_snapshot is not None:
        on_snapshot(path, step)


class _State:
    """The training state: everything that the next step depends on."""

    def __init__(self, path: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer):
        self.path = path
        self.parts: dict[str, Any] = {"network": network, "average": average, "optimizer": optimizer}

    def save(self, step: int) -> None:
        states = {name: part.state_dict() for name, part in self.parts.items()}
        with atomic_write(self.path) as file:
            torch.save({"step": step, "random": torch.get_rng_state(), **states}, file)

    def load(self) -> int:
        """Load the training state, if there is one, and return the step to continue with."""
        if not self.path.exists():
            return 0
        stored = torch.load(self.path, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(stored[name])
        torch.set_rng_state(stored["random"])
        return int(stored["step"])


if __name__ == "__main__":
    main()
