"""Groups of options that several integrations share; each sets the defaults of the paper or of its upstream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

COLLAPSE_BOUND = 2.0  # mean β·r of real data at −2: the implicit discriminator calls them fake, 88 % sure

MOST_SAMPLES = 10_000_000  # of one command
LAST_CLASS = (1 << 31) - 1

DPM_SOLVER_V3 = "dpm-solver-v3"
SOLVERS = ("heun", "euler", DPM_SOLVER_V3)
SPACINGS = ("edm", "logSNR", "time_uniform")


class Finite(click.types.FloatParamType):
    """A float that is a number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Number(click.FloatRange, Finite):
    """The same, within bounds."""


class Place(click.Path):
    """A path that is told: an empty one, as of an unset variable of the shell, would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty; say which.", param, ctx)
        return super().convert(value, param, ctx)


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
    positive, not_negative = Number(0, min_open=True), Number(0)

    def option(*names: str, type: Any, default: Any, help: str) -> click.Option:
        return click.Option([*names], type=type, default=default, show_default=True, help=help)

    return [
        option(
            "--steps",
            type=click.IntRange(min=1),
            default=steps,
            help=f"Noise levels on the way to 0; of {DPM_SOLVER_V3}, evaluations on the way to the lowest level.",
        ),
        option(
            "--sigma-min", "--sigma_min", type=positive, default=None, help=_unless_told("Lowest level but 0", 0.002)
        ),
        option("--sigma-max", "--sigma_max", type=positive, default=None, help=_unless_told("Highest level", 80)),
        option("--rho", type=positive, default=7.0, help="Spacing of the levels: even in σ^(1/ρ)."),
        option("--solver", type=click.Choice(SOLVERS), default=None, help=_unless_told("Solver of the ODE", "heun")),
        option("--S_churn", "S_churn", type=not_negative, default=0.0, help="Fresh noise at each step; 0 is the ODE."),
        option("--S_min", "S_min", type=not_negative, default=0.0, help="Lowest level that gets fresh noise."),
        option(
            "--S_max",
            "S_max",
            type=click.FloatRange(min=0),
            default=math.inf,
            help="Highest level that gets fresh noise.",
        ),
        option("--S_noise", "S_noise", type=Finite(), default=1.0, help="Inflation of the fresh noise."),
        *_multistep_options(),
    ]


def _multistep_options() -> list[click.Option]:
    """Of DPM-Solver-v3 alone; without them it is the release's."""
    return [
        click.Option(["--order"], type=click.IntRange(1, 3), help=_unless_told(f"Order of {DPM_SOLVER_V3}", 2)),
        click.Option(
            ["--spacing"],
            type=click.Choice(SPACINGS),
            help=_unless_told(f"Spacing of the levels of {DPM_SOLVER_V3}", "edm"),
        ),
        click.Option(
            ["--statistics"],
            type=click.Path(file_okay=False, path_type=Path),
            metavar="FOLDER",
            help=f"Empirical model statistics for {DPM_SOLVER_V3}: l.npz and sb.npz; a name as 0.002_80.0_… says their "
            "noise levels.",
        ),
    ]


def _unless_told(what: str, default: object) -> str:
    """The help of an option whose absence means something else than its default's presence."""
    return f"{what}  [default: {default}]"


def ddo_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """The `--ddo…` options among all options of a script, by parameter name."""
    return {name: value for name, value in options.items() if name == "ddo" or name.startswith("ddo_")}
