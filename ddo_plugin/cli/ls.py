"""`ddo ls`"""

from __future__ import annotations

import click


@click.command("ls")
def command() -> None:
    """List the recipes and the published results.

    A recipe is a file that describes a self-play run. "fid" is the result at the end, and "fid of start" that of the
    network which the run starts from.
    """
    from ddo_plugin.selfplay.recipe import toml_source
    from ddo_plugin.selfplay.recipe.shipped import shipped

    recipes = shipped()
    width = max(map(len, recipes))
    for name, file in recipes.items():
        values = toml_source.parse(file.read_text(encoding="utf-8"))
        click.echo(f"{name:{width}}  {values['title']}")
        if expected := values.get("expected"):
            results = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in expected.items())
            click.echo(f"{'':{width}}  {results}")
    click.echo("\nThe numbers are results of the paper and of its project page.")
    click.echo("Copy a recipe with `ddo cp NAME`, and run the copy with `ddo selfplay NAME.toml`.")
