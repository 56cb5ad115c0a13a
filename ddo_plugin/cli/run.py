"""`ddo run`"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.cli._dashes import ARGUMENTS, SplitAtDashes


class _RunCommand(SplitAtDashes):
    """Says of the script's own options where they go."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise UserError(
                f"{error.option_name}: no option of `ddo run`; what goes to the script stands after `--`: "
                f"ddo run SCRIPT -- {error.option_name} ..."
            ) from None


@click.command("run", cls=_RunCommand, options_metavar="[--torchrun OPTIONS] [REPO] [SCRIPT] -- [ARGS]...")
@click.argument("what", nargs=-1, metavar="")
@click.option("--torchrun", metavar="OPTIONS", help="Start it by torchrun, for example '--nproc_per_node=8'.")
@click.pass_context
def command(ctx: click.Context, what: tuple[str, ...], torchrun: str | None) -> None:
    """Run a script of an unpatched checkout, and leave the checkout as it is.

    The training script runs with DDO. Any other one, such as generate.py, runs as it is, with what it needs on
    today's torch, numpy and scipy or on a CPU (see `ddo doctor`).

    REPO is this folder unless given, SCRIPT the training script of the upstream. What follows `--` goes to the
    script. To start several processes:

    \b
        ddo run --torchrun "--standalone --nproc_per_node=8" train.py -- ARGS
        torchrun --standalone --nproc_per_node=8 -m ddo_plugin run train.py -- ARGS
    """
    from ddo_plugin.base import environment
    from ddo_plugin.base.commands import torchrun_launcher
    from ddo_plugin.checkouts import compat, required_packages, run_script
    from ddo_plugin.checkouts.checkout import open_checkout

    repo, script = _repo_and_script(what)
    checkout = open_checkout(repo)
    if script in (None, checkout.upstream.script):
        compat.apply_for_imports()
        found = required_packages.read_imports(checkout.root, checkout.upstream.script)
        required_packages.refuse_missing_packages({**found.to_train, **checkout.upstream.needs})
    if torchrun is None and "RANK" not in os.environ:
        os.environ.setdefault("MASTER_PORT", str(environment.free_port()))  # upstreams take 29500, whoever else has it
    arguments: list[Any] = ctx.meta[ARGUMENTS]
    run_script.become_process(
        run_script.checkout_command(
            checkout, script or checkout.upstream.script, arguments, torchrun_launcher(torchrun)
        )
    )


def _repo_and_script(what: tuple[str, ...]) -> tuple[Path, str | None]:
    if len(what) > 2:
        raise click.UsageError(f"{shlex.join(what[2:])}: arguments of the script go after `--`")
    if len(what) == 2:
        return Path(what[0]), what[1]
    if what and (Path(what[0]).is_dir() or not what[0].endswith(".py")):
        return Path(what[0]), None
    return Path(), what[0] if what else None
