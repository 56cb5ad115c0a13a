"""Checks of a round before anything is written: which options cannot work together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ddo_plugin import NetworkInfo, Session, UserError


def typed(flag: str) -> bool:
    """Return whether the user typed this flag of upstream's script instead of leaving it at its default."""
    return click.get_current_context().get_parameter_source(flag) is click.core.ParameterSource.COMMANDLINE


def check_exactness(options: Mapping[str, Any]) -> None:
    """Refuse options that make likelihoods inexact: the loss compares two networks to the last digits of fp32."""
    for flag, why in (("fp16", "the loss needs fp32"), ("dropout", "DDO needs the exact likelihoods of the network")):
        if typed(flag) and options[flag]:
            raise UserError(f"--{flag}={options[flag]}: {why}; drop --{flag}")


def own_settings(options: Mapping[str, Any], dropout: float | None) -> dict[str, Any]:
    """Return settings of the network for upstream's own loss, which compares nothing: the dropout is upstream's too."""
    if typed("fp16"):
        raise UserError(f"--fp16={options['fp16']}: the network keeps the precision of --ddo; drop --fp16")
    if dropout and options["ddo_compile"]:
        raise UserError(f"--ddo-compile compiles without dropout, which is {dropout}; add --dropout=0")
    return {"dropout": dropout or 0}


def check_real(options: Mapping[str, Any], info: NetworkInfo, dataset: Any, channels: int) -> None:
    """Refuse real images that the reference cannot generate; `channels` are those of the dataset for such a network."""
    source = options["ddo"]
    if info.label_dim and not options["cond"]:
        raise UserError(f"--ddo={source} is conditional on {info.label_dim} classes; add --cond=1")
    if not info.label_dim and options["cond"]:
        raise UserError(f"--ddo={source} is an unconditional network; set --cond=0")
    data = (dataset.num_channels, dataset.resolution, dataset.label_dim)
    expected = (channels, info.resolution, info.label_dim)
    if data != expected:
        names = "channels, resolution and classes"
        raise UserError(f"--data={options['data']} has {data} {names}, but --ddo={source} has {expected}")


def check_fakes(options: Mapping[str, Any], session: Session) -> None:
    """Refuse fakes whose shape or classes are not the reference's, and fakes that are the real images."""
    if session.fakes is None:
        return
    source = options["ddo_fakes"]
    if source is not None and Path(source).resolve() == Path(options["data"]).resolve():
        raise UserError(f"--ddo-fakes={source} is the same path as --data; pass samples of the reference")
    info: NetworkInfo = session.reference.info
    shape, classes = tuple(session.fakes.shape), session.fakes.classes
    expected = (info.channels, info.resolution, info.resolution)
    if shape != expected:
        raise UserError(f"--ddo-fakes={options['ddo_fakes']}: images are {shape}, but the reference's are {expected}")
    label_dim = info.label_dim or 0
    if (classes == 0) != (label_dim == 0) or classes > label_dim:
        raise UserError(f"--ddo-fakes={options['ddo_fakes']}: has {classes} classes, but the reference has {label_dim}")


def check_batch(batch: int, batch_gpu: int | None, ranks: int) -> None:
    """Refuse a batch that the loop cannot split into equal parts: over ranks, and over the forwards of a rank."""
    for flag, value in (("batch", batch), ("batch-gpu", batch_gpu)):
        if value is not None and value < 1:
            raise UserError(f"--{flag}={value}: the number of images must be at least 1")
    each = batch // ranks
    if batch == each * ranks and each and each % min(batch_gpu or each, each) == 0:
        return
    parts = f" in parts of --batch-gpu={batch_gpu}" if batch_gpu else ""
    raise UserError(
        f"--batch={batch} cannot be split over {ranks} ranks{parts}; use a multiple of {ranks * (batch_gpu or 1)}"
    )
