"""`ddo selfplay`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddo_plugin.base.errors import UserError

if TYPE_CHECKING:
    from ddo_plugin.selfplay.recipe.load import Recipe


@click.command("selfplay")
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for networks and journal  [default: selfplay-NAME, after the recipe's file]",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Another value, as policy.retries=3.")
@click.option("--dry-run", is_flag=True, help="Print every command, and run none.")
@click.option("--status", is_flag=True, help="Say how far the run in this folder is; also while it runs.")
def command(recipe: Path, out: Path | None, overrides: tuple[str, ...], dry_run: bool, status: bool) -> None:
    """Play the rounds of the file RECIPE: reference set, training, evaluation, selection, and again.

    After an interruption, a kill or a failure the same command goes on where the run was. `ddo report` shows what
    came of it, also while it runs.
    """
    from ddo_plugin.selfplay.recipe import load as recipes
    from ddo_plugin.selfplay.recipe.shipped import recipe_file

    out = out or Path(f"selfplay-{recipe.stem}")
    if status:
        _status(out)
        return
    loaded = recipes.load(recipe_file(str(recipe)), overrides)
    for note in loaded.notes:
        click.secho(note, fg="yellow", err=True)
    if dry_run:
        _dry_run(loaded, out)
    else:
        _run(loaded, out)


def _run(recipe: Recipe, out: Path) -> None:
    from ddo_plugin.jobs.executor import StepFailedError
    from ddo_plugin.jobs.interrupts import resumable
    from ddo_plugin.selfplay.run import run

    try:
        with resumable():
            best = run(recipe, out)
    except StepFailedError as failure:
        raise click.ClickException(failure.line()) from None
    click.echo(f"Best: {best.score:.4g}, {best.network}")
    click.echo(f"`ddo report {out}` shows how it came about")


def _dry_run(recipe: Recipe, out: Path) -> None:
    from ddo_plugin.selfplay import dry_run
    from ddo_plugin.selfplay.run import planned

    for line in dry_run.lines(planned(recipe), out):
        click.echo(line)


def _status(out: Path) -> None:
    from ddo_plugin.selfplay.status import lines

    if not out.is_dir():
        raise UserError(f"{out}: no run has begun here; give its folder by --out")
    for line in lines(out):
        click.echo(line)
