"""What the steps of EDM and EDM2 compute and store, for `ddo plan`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddo_plugin import (
    DPM_SOLVER_V3,
    EVALUATION_SAMPLES,
    Effort,
    EvaluationStep,
    Memory,
    NetworkCount,
    Rate,
    Reference,
    RefsetStep,
    RoundStep,
    UserError,
)

BACKWARD = 2  # operations of a backward pass, in forward passes
LEFT_OUT = ["reading of data", "communication between GPUs", "the metric's own network"]
UNITS = {"": 1, "K": 1_000, "M": 1_000_000, "Ki": 1 << 10, "Mi": 1 << 20}
Settings = Mapping[str, Any]
Rates = Mapping[str, Rate]  # by the names of `--precision`


@dataclass(frozen=True)
class Schedule:
    """A training: its length, and what it writes how often. All are numbers of real images, except `batch_gpu`."""

    images: int
    batch: int
    batch_gpu: int | None
    snapshot: float
    state: float


@dataclass(frozen=True)
class Files:
    """The bytes that upstream writes for each parameter of the network, and those that it holds on a GPU."""

    snapshot: int
    state: int
    on_gpu: int


def count(reference: Reference) -> NetworkCount:
    """Count a network. It moves to torch's meta device, where nothing is computed."""
    import torch

    from ddo_plugin import count_forward

    network, info = reference.network.to("meta").train(), reference.info
    half = bool(getattr(network, "use_fp16", False))
    shape = (info.channels, info.resolution, info.resolution)

    def forward(batch: int) -> object:
        labels = torch.zeros(batch, info.label_dim, device="meta") if info.label_dim else None
        noisy, sigma = torch.zeros(batch, *shape, device="meta"), torch.ones(batch, 1, 1, 1, device="meta")
        return network(noisy, sigma, labels, force_fp32=True)

    counted = count_forward(network.requires_grad_(True), forward)
    return NetworkCount(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        forward=counted.operations,
        kept=counted.kept,
        kept_once=counted.kept_once,
        sample_bytes=torch.Size(shape).numel() * (1 if info.channels in (1, 3) else 4),  # pixels, or latents in fp32
        half=half,
    )


def training(step: RoundStep, network: NetworkCount, gpus: int, plan: Schedule, rate: Rate, files: Files) -> Effort:
    """Return the effort of a round: one forward and backward pass of the target, and a forward pass of the reference.

    Both take the real images and, except in a control run, as many fakes.
    """
    fakes = step.objective != "mle"
    passes = 2 * (1 + BACKWARD) + 2 if fakes else 1 + BACKWARD
    share = max(plan.batch // gpus, 1)
    samples = 2 if fakes else 1
    return Effort(
        [rate.of(plan.images * passes * network.forward)],
        snapshots=max(_times(plan.images, plan.snapshot), 1),
        snapshot_bytes=network.parameters * files.snapshot,
        states=_times(plan.images, plan.state),
        state_bytes=network.parameters * files.state,
        memory=Memory(
            fixed=network.parameters * files.on_gpu + network.kept_once,
            per_image=samples * network.kept,
            images=min(plan.batch_gpu or share, share),
            share=share,
            option="--batch-gpu={images}",
        ),
        left_out=LEFT_OUT,
    )


def reference_set(step: RefsetStep, network: NetworkCount, steps: int, rates: Rates) -> Effort:
    """Return the effort of sampling a reference set; `steps` is the default of upstream's sampler."""
    rate = _sampling_rate(step.settings, network, rates)
    return Effort(
        [rate.of(step.count * evaluations(step.settings, steps) * network.forward)],
        stored=step.count * network.sample_bytes,
        left_out=_guiding(step.settings),
    )


def evaluation(step: EvaluationStep, network: NetworkCount, steps: int, rates: Rates) -> Effort:
    """Return the effort of sampling the images of an evaluation."""
    settings = {**step.settings, **arguments(step.settings.get("sampler", ""))}
    images = len(step.seeds) * step.settings.get("num", EVALUATION_SAMPLES)
    operations = images * evaluations(settings, steps) * network.forward
    return Effort([_sampling_rate(settings, network, rates).of(operations)], left_out=[*LEFT_OUT, *_guiding(settings)])


def _sampling_rate(settings: Settings, network: NetworkCount, rates: Rates) -> Rate:
    """Return the rate in the precision that the settings ask for, or else the network's file."""
    return rates[settings.get("precision", "fp16" if network.half else "fp32")]


def evaluations(settings: Settings, steps: int) -> int:
    """Return how often a sample runs through the network."""
    steps = int(settings.get("steps", steps))
    return steps if settings.get("solver") in ("euler", DPM_SOLVER_V3) else 2 * steps - 1


def arguments(sampler: str) -> dict[str, str]:
    """Return the arguments of upstream's sampler in the form --name=value."""
    pairs = (argument.removeprefix("--").partition("=") for argument in shlex.split(sampler) if "=" in argument)
    return {name: value for name, _, value in pairs}


def number(settings: Settings, name: str, default: float) -> float:
    """Return a setting that is a number; EDM2 also accepts the form 128Ki."""
    value = settings.get(name, default)
    if isinstance(value, int | float) and value >= 0:
        return float(value)
    found = re.fullmatch(r"(\d+)(K|M|Ki|Mi|)", str(value))
    if found is None:
        raise UserError(f"training.{name} = {value!r} is no number >= 0")
    return float(found[1]) * UNITS[found[2]]


def _times(images: float, interval: float) -> int:
    """Return how often an interval ends within a training; 0 turns it off."""
    return int(images // interval) if interval else 0


def _guiding(settings: Settings) -> Sequence[str]:
    return ["the guiding network"] if settings.get("gnet") else []
