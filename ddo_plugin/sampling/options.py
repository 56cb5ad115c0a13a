"""Options of the commands that sample networks: samplers, sizes of reference sets, where a network comes from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from ddo_plugin.base.option_types import MOST_SAMPLES, Finite, Number, Place
from ddo_plugin.sampling.solvers.choices import DPM_SOLVER_V3, SOLVERS, SPACINGS


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


def refset_options() -> list[click.Option]:
    """The options of `ddo refset make` that do not depend on the upstream."""
    return [
        click.Option(["--network"], required=True, metavar="PATH|URL", help="Network to sample."),
        click.Option(["--out"], type=Place(file_okay=False, path_type=Path), required=True, help="Folder to write."),
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
            help="Random seed. Seed 0 repeats the noise of upstream's own seeds, on which networks are evaluated.",
        ),
        click.Option(
            ["--labels"],
            default="uniform",
            show_default=True,
            help="Classes: uniform, dataset:PATH, or a list such as 0,3,5-7.",
        ),
        click.Option(["--batch"], type=click.IntRange(min=1), help="Samples per forward pass.  [default: upstream's]"),
        *network_options(),
    ]


def network_options() -> list[click.Option]:
    """How a command that samples a network is told the network's upstream, and on how many processes it runs."""
    return [
        click.Option(
            ["--checkout"],
            type=click.Path(file_okay=False, path_type=Path),
            help="The upstream's checkout.  [default: the current folder, or a folder on PYTHONPATH]",
        ),
        click.Option(["--upstream"], metavar="NAME", help="Name of the upstream.  [default: that of the checkout]"),
        click.Option(
            ["--torchrun"],
            metavar="OPTIONS",
            help="Run in several processes with these torchrun options, such as '--nproc_per_node=8'.",
        ),
    ]
