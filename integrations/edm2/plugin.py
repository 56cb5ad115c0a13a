"""The hooks of the EDM2 integration."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from ddo_plugin import (
    Command,
    EvaluationStep,
    Fakes,
    Finite,
    Generator,
    Number,
    Reference,
    RefsetStep,
    RoundStep,
    Upstream,
    continue_option,
    finetuning_options,
    hookimpl,
    pickle_options,
    sampler_options,
)

UPSTREAM = "edm2"
LANDMARKS = {
    "train_edm2.py": r"^def setup_training_config\(",
    "training/networks_edm2.py": r"^class Precond\b",
    "training/phema.py": r"^class PowerFunctionEMA\b",
    "training/training_loop.py": r"^class EDM2Loss\b",
}
PATCHES = files("ddo_patches")
STEPS = 32  # of generate_images.py
WIDEST = 0.28  # a power function's relative standard deviation stays below 1/√12


def _widths(context: click.Context, option: click.Parameter, value: str) -> list[float]:
    """ "0.05,0.1" as numbers."""
    try:
        widths = [float(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers as 0.05,0.1") from None
    if not all(0 < width <= WIDEST for width in widths):
        raise click.BadParameter(f"{value!r}: a width lies between 0 and {WIDEST}")
    if len({f"{width:.3f}" for width in widths}) < len(widths):
        raise click.BadParameter(f"{value!r}: snapshots are named by three digits, and two of these would be one file")
    return widths


def _guidance_options() -> list[click.Option]:
    """A second network, and how far to go from it."""
    return [
        click.Option(["--gnet"], metavar="PKL|URL", help="Guiding network."),
        click.Option(["--gnet-sha256"], metavar="HEX", help="What its file must have; checked before its use."),
        click.Option(["--guidance"], type=Finite(), default=1.0, show_default=True, help="Its strength; 1 is none."),
    ]


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [
        Upstream(
            name=UPSTREAM,
            title="EDM2 (NVlabs/edm2)",
            script="train_edm2.py",
            landmarks=LANDMARKS,
            patch=PATCHES / "edm2.patch",
            digests=PATCHES / "edm2.json",
            paths=("data", "ref", "gnet"),
            reserved={"outdir": "self-play sets it"},
            compat=("sampler", "weights-only", "sqrtm", "distutils", "numpy-pickles", "cpu"),
            network_classes={"Precond": "training.networks_edm2"},
        )
    ]


@hookimpl
def ddo_options(upstream: str) -> Sequence[click.Option]:
    if upstream != UPSTREAM:
        return []
    rampup = click.Option(
        ["--ddo-rampup"],
        type=Number(0),
        default=1.0,
        show_default=True,
        metavar="MIMG",
        help="Learning rate rises from 0 over so many images.",
    )
    ema = click.Option(
        ["--ddo-ema"],
        default="0.05",
        show_default=True,
        callback=_widths,
        metavar="STD[,STD]",
        help="Relative widths of the averages that snapshots hold.",
    )
    return [*finetuning_options(alpha=4.0, beta=0.05), *pickle_options(), continue_option(), rampup, ema]


@hookimpl
def ddo_configure(upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> bool | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.edm2.configuration import configure

    configure(config, options)
    return True


@hookimpl
def ddo_reference(upstream: str, source: str, options: Mapping[str, Any]) -> Reference | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.edm2.networks import load_settled

    return load_settled(source, options)


@hookimpl(trylast=True)  # a reference set is a folder too
def ddo_fakes(upstream: str, source: str | None, reference: Reference) -> Fakes | None:
    if upstream != UPSTREAM or source is None:
        return None
    from ddo_integrations.nvlabs.image_fakes import open_images

    return open_images(Path(source), reference)


@hookimpl
def ddo_generator_options(upstream: str) -> Sequence[click.Option]:
    if upstream != UPSTREAM:
        return []
    return [*sampler_options(STEPS), *_guidance_options(), *pickle_options()]


@hookimpl
def ddo_generator(upstream: str, source: str, options: Mapping[str, Any]) -> Generator | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.edm2.generator import generator

    return generator(source, options)


@hookimpl
def ddo_refset_command(step: RefsetStep) -> Command | None:
    if step.upstream != UPSTREAM:
        return None
    from ddo_plugin import refset_command

    return refset_command(step)


@hookimpl
def ddo_round_command(step: RoundStep) -> Command | None:
    if step.upstream != UPSTREAM:
        return None
    from ddo_plugin import round_command

    return round_command(step, "train_edm2.py", {"outdir": step.out})


@hookimpl
def ddo_evaluation_command(step: EvaluationStep) -> Command | None:
    if step.upstream != UPSTREAM:
        return None
    from ddo_plugin import evaluation_command

    return evaluation_command("ddo_integrations.edm2.evaluate", step)


@hookimpl
def ddo_evaluation_options(upstream: str) -> Sequence[click.Parameter]:
    if upstream != UPSTREAM:
        return []
    from ddo_integrations.edm2.evaluate import main

    return main.params
