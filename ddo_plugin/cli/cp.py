"""`ddo cp`"""

from __future__ import annotations

from pathlib import Path

import click

from ddo_plugin.base.option_types import Place


@click.command("cp")
@click.argument("name")
@click.argument("dest", type=Place(), required=False)
def command(name: str, dest: Path | None) -> None:
    """Copy a recipe to edit it.

    NAME is the name of a recipe that `ddo ls` lists. DEST is the file or folder to copy it to, by default the current
    folder. An existing file is never overwritten.
    """
    from ddo_plugin.base.files import atomic_write, writing
    from ddo_plugin.selfplay.recipe.shipped import named

    source = named(name)
    target = dest or Path()
    if target.is_dir():
        target /= source.name
    with writing(str(target)), atomic_write(target, replace=False) as file:
        file.write(source.read_bytes())
    click.echo(f"Wrote {target}. Edit its paths, then check it: ddo validate {target}")
