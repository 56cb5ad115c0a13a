"""`ddo convert`"""

from __future__ import annotations

from pathlib import Path

import click

from ddo_plugin.base.errors import UserError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("convert")
@click.argument("source", type=FILE)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--like", type=FILE, metavar="FILE", help="A training checkpoint of the same network, for the way back.")
def command(source: Path, out: Path, like: Path | None) -> None:
    """Write the network in the file SOURCE to the new file OUT, in upstream's other format.

    A training checkpoint of VAR becomes plain weights, such as upstream publishes and its sampling reads:

    \b
        ddo convert local_output/ar-ckpt-last.pth var_d16.pth

    With --like, weights become a training checkpoint from which upstream's trainer starts: with the image tokeniser
    and the settings of that file, at epoch 0 and without the optimizer's memory. Nothing of a file is run.
    """
    from ddo_plugin.hooks import plugins

    if out.exists():
        raise UserError(f"{out} exists, and nothing is overwritten; name a new file or remove it")
    try:
        told = plugins.manager().hook.ddo_convert(source=source, out=out, like=like)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}") from None
    if told is None:
        raise UserError(
            f"{source} is nothing that an installed plugin converts; `ddo inspect {source}` says what it is"
        )
    click.echo(told)
