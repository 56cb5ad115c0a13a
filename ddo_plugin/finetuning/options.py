"""TODO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ddo_plugin.base.option_types import Number

COLLAPSE_BOUND = 2.0  # mean β·r of real data at −2: the implicit discriminator calls them fake, 88 % sure


def finetuning_options(*, alpha: float, beta: float) -> list[click.Option]:
    """The common `--ddo…` options with this upstream's default α and β."""
    return [
        click.Option(["--ddo"], metavar="NETWORK", help="Finetune this network by DDO: it is reference and start."),
        click.Option(["--ddo-fakes"], metavar="PATH", help="Samples of the reference: a reference set."),
        click.Option(
            ["--ddo-objective"], metavar="NAME", default="ddo", show_default=True, help="Objective; mle is the control."
        ),
        click.Option(
            ["--ddo-alpha"],
            type=Number(0),
            default=alpha,
            show_default=True,
            help="Weight of the fake term (α).",
        ),
        click.Option(
            ["--ddo-beta"],
            type=Number(0, min_open=True),
            default=beta,
            show_default=True,
            help="Scale of the log-ratio (β); goes like 1/dimensions.",
        ),
        click.Option(
            ["--ddo-stop-on-collapse"],
            is_flag=False,
            flag_value=COLLAPSE_BOUND,
            type=Number(0, min_open=True),
            metavar="[BOUND]",
            help=f"Stop when the mean reward of real data falls below -BOUND ({COLLAPSE_BOUND} if none is given).",
        ),
        click.Option(
            ["--ddo-pause-after"],
            type=click.IntRange(min=1),
            metavar="N",
            help="End once the round has N snapshots and can go on from there; the same command without it goes on.",
        ),
        click.Option(["--ddo-strict"], is_flag=True, help="Refuse fakes that are not known to be the reference's."),
        click.Option(
            ["--ddo-round"], type=click.IntRange(min=1), metavar="N", help="Round of self-play, for the record."
        ),
    ]


def continue_option() -> click.Option:
    """For upstreams that would refuse, or start over, what an earlier start of the same command has done."""
    return click.Option(
        ["--ddo-continue"],
        is_flag=True,
        help="Go on where an earlier start of this command stopped; a finished round is left as it is.",
    )


def ddo_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """The `--ddo…` options among all options of a script, by parameter name."""
    return {name: value for name, value in options.items() if name == "ddo" or name.startswith("ddo_")}
