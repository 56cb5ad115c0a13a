"""`ddo convert`"""

from __future__ import annotations

from pathlib import Path

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import refuse_to_replace
from ddo_plugin.base.option_types import Place

FILE = Place(exists=True, dir_okay=False)


@click.command("convert")
@click.argument("source", type=FILE)
@click.argument("out", type=Place())
@click.option(
    "--like",
    type=FILE,
    metavar="FILE",
    help="Training checkpoint of the same network. Needed to convert weights into a training checkpoint.",
)
def command(source: Path, out: Path, like: Path | None) -> None:
    """Convert a network between upstream's file formats.

    SOURCE is the file to read and OUT the file to write. OUT must not exist yet.

    A training checkpoint of VAR becomes plain weights, the format that upstream publishes and samples from:

    \b
        ddo convert local_output/ar-ckpt-last.pth var_d16.pth

    With --like, weights become a training checkpoint, from which upstream's trainer starts at epoch 0 with a new
    optimizer. The image tokenizer and the settings come from the file of --like. No code in a file is run.
    """
    from ddo_plugin.hooks import plugins

    refuse_to_replace(out)
    summary = plugins.manager().hook.ddo_convert(source=source, out=out, like=like)
    if summary is None:
        raise UserError(f"{source}: no installed plugin converts such a file; `ddo inspect {source}` describes it")
    click.echo(summary)
