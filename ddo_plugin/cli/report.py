"""`ddo report`"""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.option_types import Place


@click.command("report")
@click.argument("folder", type=Place(exists=True, file_okay=False))
def command(folder: Path) -> None:
    """Write an HTML report of a self-play run.

    FOLDER is the folder of the run, where the report is written to report.html. It shows the scores, the sweep, the
    rewards, the likelihood of the real data, and the networks that the winner came from. The run may still be going on.
    """
    if any(find_spec(module) is None for module in ("matplotlib", "jinja2")):
        raise UserError("the report needs matplotlib and jinja2: pip install 'ddo-plugin[report]'")
    from ddo_plugin.selfplay.report.report import write

    click.echo(f"Report: {write(folder, shlex.join(['ddo', *sys.argv[1:]]))}")
