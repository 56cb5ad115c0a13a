"""Options of the commands that sample networks: the sampler, the reference set and the network's upstream."""

from __future__ import annotations

import math
from typing import Any

import click

from ddo_plugin.base.option_types import (
    MOST_SAMPLES,
    MOST_STEPS,
    Finite,
    Number,
    Place,
    PossiblyInfinite,
    ShellWords,
)
from ddo_plugin.sampling.solvers.choices import DPM_SOLVER_V3, SOLVERS, SPACINGS


def sampler_options(steps: int) -> list[click.Option]:
    """Return upstream's sampler options for EDM and EDM2, which differ in the default of `steps` only."""
    positive, not_negative = Number(0, min_open=True), Number(0)

    def option(*names: str, type: Any, default: Any, help: str) -> click.Option:
        return click.Option([*names], type=type, default=default, show_default=True, help=help)

    return [
        option(
            "--steps",
            type=click.IntRange(1, MOST_STEPS),
            default=steps,
            help=f"Number of noise levels above 0. With {DPM_SOLVER_V3}: number of network evaluations.",
        ),
        option(
            "--sigma-min",
            "--sigma_min",
            type=positive,
            default=None,
            help=_with_default("Lowest noise level above 0.", 0.002),
        ),
        option(
            "--sigma-max", "--sigma_max", type=positive, default=None, help=_with_default("Highest noise level.", 80)
        ),
        option(
            "--rho",
            type=positive,
            default=7.0,
            help="Exponent ρ of the noise levels, which are evenly spaced in σ^(1/ρ).",
        ),
        option(
            "--solver",
            type=click.Choice(SOLVERS),
            default=None,
            help=_with_default("Solver of the sampling ODE.", "heun"),
        ),
        option(
            "--S_churn",
            "S_churn",
            type=not_negative,
            default=0.0,
            help="Amount of fresh noise per step; 0 disables it.",
        ),
        option(
            "--S_min", "S_min", type=not_negative, default=0.0, help="Lowest noise level at which fresh noise is added."
        ),
        option(
            "--S_max",
            "S_max",
            type=PossiblyInfinite(min=0),
            default=math.inf,
            help="Highest noise level at which fresh noise is added.",
        ),
        option(
            "--S_noise",
            "S_noise",
            type=Finite(),
            default=1.0,
            help="Factor on the standard deviation of the fresh noise.",
        ),
        *_multistep_options(),
    ]


def _multistep_options() -> list[click.Option]:
    """Return the options of DPM-Solver-v3. Their defaults are the settings of the release."""
    return [
        click.Option(
            ["--order"],
            type=click.IntRange(1, 3),
            help=_with_default(f"Order of {DPM_SOLVER_V3}; a higher order is more accurate with enough steps.", 2),
        ),
        click.Option(
            ["--spacing"],
            type=click.Choice(SPACINGS),
            help=_with_default(f"Spacing of the noise levels of {DPM_SOLVER_V3}.", "edm"),
        ),
        click.Option(
            ["--statistics"],
            type=Place(file_okay=False),
            metavar="FOLDER",
            help=f"Empirical model statistics for {DPM_SOLVER_V3}: a folder with l.npz and sb.npz. A name such as "
            "0.002_80.0_1200_1024 gives the range of noise levels.",
        ),
    ]


def _with_default(text: str, default: object) -> str:
    """Return the help of an option that is None unless it is passed, with the value that None stands for."""
    return f"{text}  [default: {default}]"


def refset_options() -> list[click.Option]:
    """Return the options of `ddo refset make` that do not depend on the upstream."""
    return [
        click.Option(["--network"], required=True, metavar="PATH|URL", help="Network to sample."),
        click.Option(["--out"], type=Place(file_okay=False), required=True, help="Folder for the set."),
        click.Option(
            ["--count"],
            type=click.IntRange(1, MOST_SAMPLES),
            default=50000,
            show_default=True,
            help="Number of samples.",
        ),
        click.Option(
            ["--seed"],
            type=click.IntRange(min=0),
            default=1,
            show_default=True,
            help="Random seed. With 0, sample i has the same noise as the image of seed i in `ddo sample` and in "
            "evaluations. Use another seed for fakes.",
        ),
        click.Option(
            ["--labels"],
            default="uniform",
            show_default=True,
            help="Classes: uniform (equal numbers), dataset:PATH (its class frequencies), or a list such as 0,3,5-7.",
        ),
        click.Option(
            ["--batch"],
            type=click.IntRange(min=1),
            help="Samples per forward pass.  [default: depends on the upstream]",
        ),
        *network_options(),
    ]


def network_options() -> list[click.Option]:
    """Return the options that name the network's upstream and start several processes."""
    return [
        click.Option(
            ["--checkout"],
            type=Place(file_okay=False),
            help="Checkout of the network's upstream.  [default: the current folder, or a folder on PYTHONPATH]",
        ),
        click.Option(
            ["--upstream"],
            metavar="NAME",
            help="Upstream of the network; `ddo plugins` lists the names.  [default: the upstream of the checkout]",
        ),
        click.Option(
            ["--torchrun"],
            type=ShellWords(),
            metavar="OPTIONS",
            help="Run in several processes with these torchrun options, such as '--nproc_per_node=8'.",
        ),
    ]
