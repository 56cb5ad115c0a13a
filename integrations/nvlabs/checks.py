"""What cannot work together in a round is refused here, by name, before anything is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ddo_plugin import Finetuning, NetworkInfo, UserError


def typed(flag: str) -> bool:
    """Whether the user typed this flag of upstream's script, instead of leaving it at its default."""
    return click.get_current_context().get_parameter_source(flag) is click.core.ParameterSource.COMMANDLINE


def check_numbers(options: Mapping[str, Any]) -> None:
    """Upstream takes NaN for a number, and passes it on to every weight."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name}={value} is no finite number; give one, or drop --{name}")


def check_exactness(options: Mapping[str, Any]) -> None:
    """The loss compares two networks to the last digits of fp32."""
    for flag, why in (("fp16", "the loss needs fp32"), ("dropout", "DDO needs the exact likelihoods of the network")):
        if typed(flag) and options[flag]:
            raise UserError(f"--{flag}={options[flag]}: {why}; drop --{flag}")


def check_real(options: Mapping[str, Any], info: NetworkInfo, dataset: Any, channels: int) -> None:
    """Real images must be what the reference generates; `channels` is how many the dataset has for such a network."""
    source = options["ddo"]
    if info.label_dim and not options["cond"]:
        raise UserError(f"--ddo={source} is conditional on {info.label_dim} classes; add --cond=1")
    if not info.label_dim and options["cond"]:
        raise UserError(f"--ddo={source} is an unconditional network; set --cond=0")
    found = (dataset.num_channels, dataset.resolution, dataset.label_dim)
    expected = (channels, info.resolution, info.label_dim)
    if found != expected:
        names = "channels, resolution and classes"
        raise UserError(f"--data={options['data']} has {found} {names}, but --ddo={source} has {expected}")


def check_fakes(options: Mapping[str, Any], run: Finetuning) -> None:
    """Fakes must be of the reference's shape and classes, and no real images."""
    if run.fakes is None:
        return
    source = options["ddo_fakes"]
    if source is not None and Path(source).resolve() == Path(options["data"]).resolve():
        raise UserError(f"--ddo-fakes={source} is --data; give samples of the reference")
    info: NetworkInfo = run.reference.info
    shape, classes = tuple(run.fakes.shape), run.fakes.classes
    expected = (info.channels, info.resolution, info.resolution)
    if shape != expected:
        raise UserError(f"--ddo-fakes={options['ddo_fakes']}: images are {shape}, but the reference's are {expected}")
    label_dim = info.label_dim or 0
    if (classes == 0) != (label_dim == 0) or classes > label_dim:
        raise UserError(f"--ddo-fakes={options['ddo_fakes']}: has {classes} classes, but the reference has {label_dim}")


def check_batch(batch: int, batch_gpu: int | None, ranks: int) -> None:
    """Native loops count in equal parts: of ranks, and of what one forwards at once."""
    for flag, given in (("batch", batch), ("batch-gpu", batch_gpu)):
        if given is not None and given < 1:
            raise UserError(f"--{flag}={given}: images are counted from 1")
    each = batch // ranks
    if batch == each * ranks and each and each % min(batch_gpu or each, each) == 0:
        return
    parts = f" in parts of --batch-gpu={batch_gpu}" if batch_gpu else ""
    raise UserError(
        f"--batch={batch} cannot be split over {ranks} ranks{parts}; use a multiple of {ranks * (batch_gpu or 1)}"
    )
