"""`ddo validate`"""

from __future__ import annotations

import click

from ddo_plugin.base.errors import printable


@click.command("validate")
@click.argument("file")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of the recipe, as in sweep.alpha=[1,2]. May be repeated.",
)
def command(file: str, overrides: tuple[str, ...]) -> None:
    """Check a recipe and report all its problems.

    FILE is a recipe: a TOML file that `ddo selfplay` runs. Each problem is reported with its line and the nearest valid
    key. Options of upstream's training script are checked against its source in the recipe's checkout. If the checkout
    does not exist, a line says that they were not checked.
    """
    from ddo_plugin.selfplay.recipe.load import load
    from ddo_plugin.selfplay.recipe.shipped import recipe_file

    recipe = load(recipe_file(file), overrides)
    first, rounds = recipe.rounds[0], len(recipe.rounds)
    pairs = len(first.candidates)
    searched = " in an adaptive search" if first.search else ""
    counts = f"{rounds} round{'s' * (rounds > 1)}, {pairs} pair{'s' * (pairs > 1)} of alpha and beta{searched}"
    click.echo(printable(f"{file}: {recipe.title}; {counts}. No problems."))
    for note in recipe.notes:
        click.echo(printable(f"  not checked: {note}"))
