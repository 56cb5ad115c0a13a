"""`ddo report`"""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from ddo_plugin.base.errors import UserError


@click.command("report")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Write report.html of the self-play run in FOLDER: scores, sweep, rewards, likelihood, where the best came from.

    It needs nothing of the run but its folder, and can be made at any time, also while it runs.
    """
    if any(find_spec(module) is None for module in ("matplotlib", "jinja2")):
        raise UserError("the report needs matplotlib and jinja2: pip install 'ddo-plugin[report]'")
    from ddo_plugin.selfplay.report.report import write

    click.echo(f"Report: {write(folder, shlex.join(['ddo', *sys.argv[1:]]))}")
