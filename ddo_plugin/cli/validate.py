"""`ddo validate`"""

from __future__ import annotations

import click


@click.command("validate")
@click.argument("file")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As sweep.alpha=[1,2]. May be given again."
)
def command(file: str, overrides: tuple[str, ...]) -> None:
    """Check the recipe FILE; everything that is wrong with it is reported at once, with its line.

    Options of upstream's training script are checked against the source in the recipe's checkout, if that is there.
    """
    from ddo_plugin.selfplay.recipe.load import load
    from ddo_plugin.selfplay.recipe.shipped import recipe_file

    recipe = load(recipe_file(file), overrides)
    first, rounds = recipe.rounds[0], len(recipe.rounds)
    searched = " in an adaptive search" if first.search else ""
    click.echo(
        f"{file}: {recipe.title}; {rounds} rounds, {len(first.candidates)} pairs of alpha and beta{searched}. "
        "No problems."
    )
    for note in recipe.notes:
        click.echo(f"  not checked: {note}")
