"""The hooks of the EDM integration."""

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

UPSTREAM = "edm"
LANDMARKS = {
    "train.py": r"^def main\(",
    "training/loss.py": r"^class EDMLoss\b",
    "training/networks.py": r"^class EDMPrecond\b",
    "training/training_loop.py": r"^def training_loop\(",
}
PATCHES = files("ddo_patches")
PRECONDITIONERS = ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond")
STEPS = 18  # of generate.py


def _ablation_options() -> list[click.Option]:
    """Of generate.py, too: other methods in EDM's frame."""
    levels = "Noise levels, each with a range of its own  [default: edm]"
    return [
        click.Option(["--disc"], type=click.Choice(["vp", "ve", "iddpm", "edm"]), help=levels),
        click.Option(["--schedule"], type=click.Choice(["vp", "ve", "linear"]), help="σ(t)  [default: linear]"),
        click.Option(["--scaling"], type=click.Choice(["vp", "none"]), help="s(t)  [default: none]"),
    ]


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [
        Upstream(
            name=UPSTREAM,
            title="EDM (NVlabs/edm)",
            script="train.py",
            landmarks=LANDMARKS,
            patch=PATCHES / "edm.patch",
            digests=PATCHES / "edm.json",
            paths=("data", "ref"),
            reserved={
                "outdir": "self-play sets it",
                "resume": "a round starts from its reference and resumes by itself",
                "transfer": "a round starts from its reference",
            },
            compat=("sampler", "weights-only", "sqrtm", "distutils", "numpy-pickles", "cpu"),
            network_classes=dict.fromkeys(PRECONDITIONERS, "training.networks"),
        )
    ]


@hookimpl
def ddo_options(upstream: str) -> Sequence[click.Option]:
    if upstream != UPSTREAM:
        return []
    rampup = click.Option(
        ["--ddo-rampup"],
        type=Number(0),
        metavar="MIMG",
        help="Learning rate rises from 0 over so many images  [default: all of --duration]",
    )
    return [*finetuning_options(alpha=4.0, beta=0.05), *pickle_options(), continue_option(), rampup]


@hookimpl
def ddo_configure(upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> bool | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.edm.configuration import configure

    configure(config, options)
    return True


@hookimpl
def ddo_reference(upstream: str, source: str, options: Mapping[str, Any]) -> Reference | None:
    if upstream != UPSTREAM:
        return None
    from ddo_plugin import load_reference

    return load_reference(source, options)


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
    return [*sampler_options(STEPS), *_ablation_options(), *pickle_options()]


@hookimpl
def ddo_generator(upstream: str, source: str, options: Mapping[str, Any]) -> Generator | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.edm.generator import generator

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

    return round_command(step, "train.py", {"outdir": step.out, "nosubdir": True})


@hookimpl
def ddo_evaluation_command(step: EvaluationStep) -> Command | None:
    if step.upstream != UPSTREAM:
        return None
    from ddo_plugin import evaluation_command

    return evaluation_command("ddo_integrations.edm.evaluate", step)


@hookimpl
def ddo_evaluation_options(upstream: str) -> Sequence[click.Parameter]:
    if upstream != UPSTREAM:
        return []
    from ddo_integrations.edm.evaluate import main

    return main.params
