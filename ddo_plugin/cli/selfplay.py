"""`ddo selfplay`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddo_plugin.base.errors import UserError, printable
from ddo_plugin.base.option_types import Place

if TYPE_CHECKING:
    from ddo_plugin.selfplay.recipe.load import Recipe


@click.command("selfplay")
@click.argument("recipe", type=Place(dir_okay=False))
@click.option(
    "--out",
    type=Place(file_okay=False),
    help="Folder for networks, evaluations and the journal.  [default: selfplay-RECIPE]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of the recipe, as in policy.retries=3. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Print all commands without running them.")
@click.option(
    "--status", is_flag=True, help="Show the progress of the run in the folder --out. The run may still be going on."
)
def command(recipe: Path, out: Path | None, overrides: tuple[str, ...], dry_run: bool, status: bool) -> None:
    """Run the rounds of self-play that a recipe describes.

    RECIPE is a TOML file; `ddo cp` copies one for you to edit. Each round makes a reference set, finetunes the
    reference, evaluates the snapshots, and selects the best one as the next reference. After an interruption or a
    failure, run the same command again to resume. `ddo report` shows the results, also while the run goes on.
    """
    from ddo_plugin.selfplay.recipe import load as recipes
    from ddo_plugin.selfplay.recipe.shipped import recipe_file

    out = out or Path(f"selfplay-{recipe.stem}")
    if status:
        _status(out)
        return
    loaded = recipes.load(recipe_file(str(recipe)), overrides)
    for note in loaded.notes:
        click.secho(printable(f"not checked: {note}"), fg="yellow", err=True)
    if dry_run:
        _dry_run(loaded, out)
    else:
        _run(loaded, out)


def _run(recipe: Recipe, out: Path) -> None:
    from ddo_plugin.base.interrupts import resumable
    from ddo_plugin.jobs.executor import StepFailedError
    from ddo_plugin.selfplay import judged
    from ddo_plugin.selfplay.run import run

    try:
        with resumable():
            best = run(recipe, out)
    except StepFailedError as failure:
        raise click.ClickException(failure.line()) from None
    table = list(judged.table(judged.of(out)))
    click.echo(f"Best: {best.network}" if table else f"Best: {best.score:.4g}, {best.network}")
    for line in table:
        click.echo(line)
    click.echo(f"`ddo report {out}` writes a report of the run")


def _dry_run(recipe: Recipe, out: Path) -> None:
    from ddo_plugin.selfplay import dry_run
    from ddo_plugin.selfplay.run import planned, played

    for line in dry_run.lines(played(planned(recipe)), out):
        click.echo(printable(line))


def _status(out: Path) -> None:
    from ddo_plugin.selfplay.status import lines

    if not out.is_dir():
        raise UserError(f"{out}: no self-play run in this folder; pass the folder of a run with --out")
    for line in lines(out):
        click.echo(printable(line))
