"""Groups of options that several integrations share; each sets the defaults of the paper or of its upstream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click

COLLAPSE_BOUND = 2.0  # mean β·r of real data at −2: the implicit discriminator calls them fake, 88 % sure

SOLVERS = ("heun", "euler")


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
            type=click.FloatRange(min=0),
            default=alpha,
            show_default=True,
            help="Weight of the fake term (α).",
        ),
        click.Option(
            ["--ddo-beta"],
            type=click.FloatRange(min=0, min_open=True),
            default=beta,
            show_default=True,
            help="Scale of the log-ratio (β); goes like 1/dimensions.",
        ),
        click.Option(
            ["--ddo-stop-on-collapse"],
            is_flag=False,
            flag_value=COLLAPSE_BOUND,
            type=click.FloatRange(min=0, min_open=True),
            metavar="[BOUND]",
            help=f"Stop when the mean reward of real data falls below -BOUND ({COLLAPSE_BOUND} if none is given).",
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


def sha256_option() -> click.Option:
    """For a network that comes from elsewhere."""
    return click.Option(["--ddo-sha256"], metavar="HEX", help="What the network's file must have; checked first.")


def pickle_options() -> list[click.Option]:
    """For upstreams whose networks are pickles, which are programs."""
    return [
        sha256_option(),
        click.Option(["--ddo-trust"], is_flag=True, help="Run the code that the network's file carries."),
    ]


def sampler_options(steps: int) -> list[click.Option]:
    """For networks of EDM's kind: upstream's sampler flags and defaults; `steps` differs between EDM and EDM2."""
    positive, not_negative = click.FloatRange(min=0, min_open=True), click.FloatRange(min=0)

    def option(*names: str, type: Any, default: Any, help: str) -> click.Option:
        return click.Option([*names], type=type, default=default, show_default=True, help=help)

    return [
        option("--steps", type=click.IntRange(min=1), default=steps, help="Noise levels on the way to 0."),
        option("--sigma-min", "--sigma_min", type=positive, default=0.002, help="Lowest noise level but 0."),
        option("--sigma-max", "--sigma_max", type=positive, default=80.0, help="Highest noise level."),
        option("--rho", type=positive, default=7.0, help="Spacing of the levels: even in σ^(1/ρ)."),
        option("--solver", type=click.Choice(SOLVERS), default="heun", help="Of the ODE."),
        option("--S_churn", "S_churn", type=not_negative, default=0.0, help="Fresh noise at each step; 0 is the ODE."),
        option("--S_min", "S_min", type=not_negative, default=0.0, help="Lowest level that gets fresh noise."),
        option("--S_max", "S_max", type=not_negative, default=math.inf, help="Highest level that gets fresh noise."),
        option("--S_noise", "S_noise", type=float, default=1.0, help="Inflation of the fresh noise."),
    ]


def ddo_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """The `--ddo…` options among all options of a script, by parameter name."""
    return {name: value for name, value in options.items() if name == "ddo" or name.startswith("ddo_")}
