"""`ddo cp`"""

from __future__ import annotations

from pathlib import Path

import click

from ddo_plugin.base.errors import UserError


@click.command("cp")
@click.argument("name")
@click.argument("dest", type=click.Path(path_type=Path), required=False)
def command(name: str, dest: Path | None) -> None:
    """Copy the recipe NAME to the file or folder DEST, which is this folder unless given."""
    from ddo_plugin.base.files import atomic_write
    from ddo_plugin.selfplay.recipe.shipped import named

    source = named(name)
    target = dest or Path()
    if target.is_dir():
        target /= source.name
    if target.exists():
        raise UserError(f"{target} exists, and nothing is overwritten; name another file")
    try:
        with atomic_write(target) as file:
            file.write(source.read_bytes())
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}); name another file") from None
    click.echo(f"{target}: edit its paths, then: ddo validate {target}")
