"""The hooks of the VAR integration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from ddo_integrations.var.names import NEEDS, UPSTREAM
from ddo_plugin import (
    Command,
    EvaluationStep,
    Generator,
    Number,
    OnlineFakes,
    Reference,
    RefsetStep,
    RoundStep,
    Upstream,
    continue_option,
    finetuning_options,
    hookimpl,
    sha256_option,
)

LANDMARKS = {
    "train.py": r"^def main_training\(",
    "trainer.py": r"^class VARTrainer\b",
    "models/var.py": r"^class VAR\b",
    "utils/arg_util.py": r"^class Args\b",
}
GUIDANCE = "Classifier-free guidance, as upstream's; 0 is none (1 is not)."
VAE_HELP = "Image tokeniser's weights  [default: in the current folder or the checkout, or downloaded]"
PATCHES = files("ddo_patches")


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [
        Upstream(
            name=UPSTREAM,
            title="VAR (FoundationVision/VAR)",
            script="train.py",
            landmarks=LANDMARKS,
            patch=PATCHES / "var.patch",
            digests=PATCHES / "var.json",
            needs=NEEDS,
            paths=("data_path", "ref", "vae"),
            reserved={"local_out_dir_path": "self-play sets it"},
            compat=("git", "no-group", "cpu"),
        )
    ]


@hookimpl
def ddo_options(upstream: str) -> Sequence[click.Option]:
    if upstream != UPSTREAM:
        return []
    steps = click.Option(
        ["--ddo-iters"],
        type=click.IntRange(min=2),  # upstream's schedule divides by one less
        default=80,
        show_default=True,
        help="Optimizer steps of the round.",
    )
    snapshots = click.Option(
        ["--ddo-save"],
        type=click.IntRange(min=1),
        default=4,
        show_default=True,
        help="Steps between snapshots of the network.",
    )
    states = click.Option(
        ["--ddo-state"],
        type=click.IntRange(min=0),
        default=20,
        show_default=True,
        help="Steps between training states, from which an interrupted run goes on; 0 for none.",
    )
    return [*finetuning_options(alpha=50.0, beta=0.02), sha256_option(), continue_option(), steps, snapshots, states]


@hookimpl
def ddo_configure(upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> bool | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.var.configuration import configure

    configure(config, options)
    return True


@hookimpl
def ddo_loader(upstream: str, batches: Iterable[Any]) -> tuple[Iterable[Any], int] | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.var import round as rounds
    from ddo_integrations.var.trainer import install

    install()
    return rounds.active().ahead(batches), rounds.active().batches


@hookimpl
def ddo_reference(upstream: str, source: str, options: Mapping[str, Any]) -> Reference | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.var.networks import load_reference

    return load_reference(source, options["ddo_sha256"], "--ddo")


@hookimpl(trylast=True)  # a reference set comes before it
def ddo_fakes(upstream: str, source: str | None, reference: Reference) -> OnlineFakes | None:
    if upstream != UPSTREAM or source is not None:
        return None
    return OnlineFakes({"online": True, "reference_sha256": reference.sha256})


@hookimpl
def ddo_convert(source: Path, out: Path, like: Path | None) -> str | None:
    from ddo_integrations.var.convert import convert

    return convert(source, out, like)


@hookimpl
def ddo_generator_options(upstream: str) -> Sequence[click.Option]:
    if upstream != UPSTREAM:
        return []
    not_negative = click.IntRange(min=0)
    cfg = Number(0)
    return [
        click.Option(["--cfg"], type=cfg, default=0.0, show_default=True, help=GUIDANCE),
        click.Option(["--top-k"], type=not_negative, default=0, show_default=True, help="Of the likeliest; 0: of all."),
        click.Option(["--top-p"], type=Number(0, 1), default=0.0, show_default=True, help="Of their share."),
        click.Option(["--more-smooth"], is_flag=True, help="Smoothed embeddings, for looking at images."),
        click.Option(["--precision"], type=click.Choice(["fp32", "fp16", "bf16"]), default="fp32", show_default=True),
        click.Option(["--vae"], metavar="FILE", help=VAE_HELP),
        sha256_option(),
    ]


@hookimpl
def ddo_generator(upstream: str, source: str, options: Mapping[str, Any]) -> Generator | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.var.generator import generator

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

    return round_command(step, "train.py", {"local_out_dir_path": step.out})


@hookimpl
def ddo_evaluation_command(step: EvaluationStep) -> Command | None:
    if step.upstream != UPSTREAM:
        return None
    from ddo_plugin import evaluation_command

    return evaluation_command("ddo_integrations.var.evaluate", step)


@hookimpl
def ddo_evaluation_options(upstream: str) -> Sequence[click.Parameter]:
    if upstream != UPSTREAM:
        return []
    from ddo_integrations.var.evaluate import main

    return main.params
