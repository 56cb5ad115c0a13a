"""What the steps of EDM and EDM2 compute and store, for `ddo plan`."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ddo_plugin import (
    DPM_SOLVER_V3,
    EVALUATION_SAMPLES,
    Effort,
    EvaluationStep,
    Memory,
    NetworkCount,
    Rate,
    RefsetStep,
    RoundStep,
    Upstream,
    UserError,
)

BACKWARD = 2  # operations of a backward pass, in forward passes
LEFT_OUT = ["reading of data", "communication between GPUs", "the metric's own network"]
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
NOT_TRUSTED = {"ddo_trust": False, "ddo_sha256": None}
Settings = Mapping[str, Any]
Rates = Mapping[str, Rate]  # by the names of `--precision`


@dataclass(frozen=True)
class Schedule:
    """A training: its length, and what it writes how often. All are numbers of real images, except `batch_gpu`."""

    images: int
    batch: int
    batch_gpu: int | None
    snapshots: int  # that it writes
    states: int


@dataclass(frozen=True)
class Files:
    """The bytes that upstream writes for each parameter of the network, and those that it holds on a GPU."""

    snapshot: int
    state: int
    on_gpu: int


def count(file: Path, upstream: Upstream) -> NetworkCount:
    """Count a network. It moves to torch's meta device, where nothing is computed."""
    import torch

    from ddo_plugin import count_forward, load_reference

    reference = load_reference(str(file), NOT_TRUSTED, upstream)
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

    Both take the real images and as many fakes. A control run and Neon train the target alone, on one of the two.
    """
    compared = step.objective not in ("mle", "neon")
    passes = 2 * (1 + BACKWARD) + 2 if compared else 1 + BACKWARD
    share = share_of(plan.batch, gpus)
    samples = 2 if compared else 1
    return Effort(
        [rate.of(plan.images * passes * network.forward)],
        snapshots=plan.snapshots,
        network_bytes=network.parameters * files.snapshot,
        states=plan.states,
        state_bytes=network.parameters * files.state,
        memory=Memory(
            fixed=network.parameters * files.on_gpu + network.kept_once,
            per_image=samples * network.kept,
            images=_pass(plan.batch_gpu, share),
            share=share,
            option="training.batch-gpu = {images}",
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
    images = len(step.seeds) * int(number(step.settings, "num", EVALUATION_SAMPLES))
    operations = images * evaluations(settings, steps) * network.forward
    return Effort([_sampling_rate(settings, network, rates).of(operations)], left_out=[*LEFT_OUT, *_guiding(settings)])


def _sampling_rate(settings: Settings, network: NetworkCount, rates: Rates) -> Rate:
    """Return the rate in the precision that the settings ask for, or else the network's file."""
    precision = settings.get("precision", "fp16" if network.half else "fp32")
    if precision not in rates:
        raise UserError(f"precision = {precision!r} is none of {', '.join(rates)}")
    return rates[precision]


def evaluations(settings: Settings, steps: int) -> int:
    """Return how often a sample runs through the network."""
    steps = int(number(settings, "steps", steps))
    return steps if settings.get("solver") in ("euler", DPM_SOLVER_V3) else 2 * steps - 1


def arguments(sampler: str) -> dict[str, str]:
    """Return the arguments of upstream's sampler, given as --name=value or --name value."""
    try:
        words = shlex.split(sampler)
    except ValueError as error:
        raise UserError(f"evaluation.sampler = {sampler!r}: {error}") from None
    pairs = [word.partition("=")[::2] if "=" in word else (word, after) for word, after in pairwise([*words, ""])]
    return {name.removeprefix("--"): value for name, value in pairs if name.startswith("--")}


def number(settings: Settings, name: str, default: float) -> float:
    """Return a setting that is a number >= 0."""
    value = settings.get(name, default)
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not 0 <= found < math.inf:
        raise UserError(f"{name} = {value!r} is not a number >= 0, so there is no plan; correct it in the recipe")
    return found


def images(settings: Settings, name: str, default: int) -> int:
    """Return a number of images as EDM2 accepts it: a whole number, or in the form 128Ki."""
    value = settings.get(name, default)
    found = re.fullmatch(r"(\d+)(Ki|Mi|Gi)", str(value))
    return int(found[1]) * UNITS[found[2]] if found else int(number(settings, name, default))


def share_of(batch: int, gpus: int) -> int:
    """Return the images of a step on each GPU. Refuse a batch that upstream cannot divide."""
    if batch < 1 or batch % gpus:
        raise UserError(
            f"training.batch = {batch} cannot be divided among {gpus} GPUs; change the batch, or use --gpus"
        )
    return batch // gpus


def _pass(batch_gpu: int | None, share: int) -> int:
    """Return the images of one pass on a GPU."""
    if batch_gpu and share % batch_gpu:
        raise UserError(
            f"training.batch-gpu = {batch_gpu} does not divide the {share} images of a step on each GPU; change it"
        )
    return batch_gpu or share


def _guiding(settings: Settings) -> Sequence[str]:
    return ["the guiding network"] if settings.get("gnet") else []
