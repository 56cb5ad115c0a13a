"""`ddo demo`"""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.option_types import Place

FAMILIES = {"diffusion": ("diffusion",), "tokens": ("tokens",), "both": ("diffusion", "tokens")}
EXTRA = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "jinja2": "jinja2"}


@click.command("demo")
@click.option(
    "--family", type=click.Choice(list(FAMILIES)), default="both", show_default=True, help="Model families to run."
)
@click.option(
    "--rounds", type=click.IntRange(min=1), help="Number of self-play rounds.  [default: diffusion 3, tokens 1]"
)
@click.option(
    "--out",
    type=Place(file_okay=False),
    default="ddo-demo",
    show_default=True,
    help="Folder for the networks, the journal and the report.",
)
@click.option("--quick", is_flag=True, help="Train for fewer steps, with a smaller effect; takes under a minute.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
def command(family: str, rounds: int | None, out: Path, quick: bool, seed: int) -> None:
    """Run DDO self-play on scikit-learn's digits, on a CPU.

    Trains two tiny models from scratch. Finetunes each by DDO and, as a control, by more maximum likelihood. Prints the
    Fréchet distances and writes report.html. The same seed gives the same numbers. After an interruption, run the same
    command again to resume.
    """
    _require_extra()
    from ddo_integrations.demo import report
    from ddo_integrations.demo.play import Demo, run
    from ddo_integrations.demo.settings import FULL, QUICK
    from ddo_plugin.base.interrupts import resumable
    from ddo_plugin.jobs.executor import StepFailedError

    try:
        with resumable():
            run(Demo(out, FAMILIES[family], QUICK if quick else FULL, rounds, seed))
    except StepFailedError as failure:
        raise click.ClickException(f"a step failed: {failure}") from None
    families = report.by_family(out, FAMILIES[family])
    click.echo(f"\nFréchet distance, lower is better:\n\n{report.terminal(report.table(families))}\n")
    for arms in families.values():
        for warning in report.warnings(arms):
            click.secho(warning, fg="yellow")
    click.echo(f"Report: {report.write(out, families, shlex.join(['ddo', *sys.argv[1:]]))}")


def _require_extra() -> None:
    for module, name in EXTRA.items():
        if find_spec(module) is None:
            raise UserError(f"the demo needs {name}: pip install 'ddo-plugin[demo]'")
