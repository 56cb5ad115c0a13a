"""The `--ddo…` options that every training script gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.option_types import Number

COLLAPSE_BOUND = 2.0  # at a mean β·r of −2, the implicit discriminator takes real data for fake with 88 %


def finetuning_options(*, alpha: float, beta: float) -> list[click.Option]:
    """Return the common `--ddo…` options with an upstream's default α and β."""
    return [
        click.Option(
            ["--ddo"],
            metavar="NETWORK",
            help="Network to finetune by DDO. Training starts from this network, and a frozen copy is the reference.",
        ),
        click.Option(
            ["--ddo-fakes"],
            metavar="PATH",
            help="Samples of the reference (fakes): a folder that `ddo refset make` writes.",
        ),
        click.Option(
            ["--ddo-objective"],
            metavar="NAME",
            default="ddo",
            show_default=True,
            help="Training objective. Use mle (maximum likelihood) for a control run without DDO, and neon (maximum "
            "likelihood on the fakes) to extrapolate away from the result.",
        ),
        click.Option(
            ["--ddo-alpha"],
            type=Number(0),
            default=alpha,
            show_default=True,
            help="Weight α of the loss on the fakes.",
        ),
        click.Option(
            ["--ddo-beta"],
            type=Number(0, min_open=True),
            default=beta,
            show_default=True,
            help="Factor β of the log-likelihood ratio in the loss. Data of more dimensions need smaller values.",
        ),
        click.Option(
            ["--ddo-stop-on-collapse"],
            is_flag=False,
            flag_value=COLLAPSE_BOUND,
            type=Number(0, min_open=True),
            metavar="[BOUND]",
            help="Stop when the mean reward of real data (β times the log-likelihood ratio) falls below -BOUND. "
            f"BOUND is {COLLAPSE_BOUND} if you pass no value.",
        ),
        click.Option(
            ["--ddo-pause-after"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Stop at a resumable point after N snapshots; rerun without this option to continue.",
        ),
        click.Option(
            ["--ddo-strict"],
            is_flag=True,
            help="Refuse fakes that are not known to be samples of the reference, instead of printing a warning.",
        ),
        click.Option(
            ["--ddo-round"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Number of the self-play round to record; random numbers can depend on it.",
        ),
    ]


def continue_option() -> click.Option:
    """Return `--ddo-continue`, for upstreams that would refuse, or repeat, what the same command has already done."""
    return click.Option(
        ["--ddo-continue"],
        is_flag=True,
        help="Resume the round if an earlier run of this command was interrupted; do nothing if the round is finished.",
    )


def noise_option() -> click.Option:
    """Return `--ddo-noise`, for diffusion models."""
    return click.Option(
        ["--ddo-noise"],
        type=click.Choice(["paired", "independent"]),
        default="paired",
        show_default=True,
        help="Noise in a batch. With paired, the i-th real image and the i-th fake have the same noise level and the "
        "same noise; with independent, each image has its own.",
    )


def compile_option() -> click.Option:
    """Return `--ddo-compile`, for upstreams that do not call torch.compile themselves."""
    return click.Option(
        ["--ddo-compile"],
        is_flag=True,
        help="Compile target and reference by torch.compile. The first step then takes minutes, later steps less time.",
    )


def ddo_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `--ddo…` options among all options of a script, by parameter name."""
    return {name: value for name, value in options.items() if name == "ddo" or name.startswith("ddo_")}


def refuse_nonfinite(options: Mapping[str, Any]) -> None:
    """Refuse NaN and infinity among a script's options; upstream would pass them on to every weight."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name}={value} is not a finite number; pass another value, or drop --{name}")


def add_options(function: Any, options: Sequence[click.Option]) -> None:
    """Add options to a function that click makes a command of later; click.option accepts no finished options."""
    function.__click_params__ = [*getattr(function, "__click_params__", []), *reversed(options)]
