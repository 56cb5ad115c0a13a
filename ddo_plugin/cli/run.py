"""`ddo run`"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.option_types import ShellWords
from ddo_plugin.cli._dashes import ARGUMENTS, SplitAtDashes


class _RunCommand(SplitAtDashes):
    """A command whose error messages say where options of the script belong."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise UserError(
                f"{error.option_name}: `ddo run` has no such option; options of the script go after `--`: "
                f"ddo run SCRIPT -- {error.option_name} ..."
            ) from None


@click.command("run", cls=_RunCommand, options_metavar="[--torchrun OPTIONS] [REPO] [SCRIPT] -- [ARGS]...")
@click.argument("what", nargs=-1, metavar="")
@click.option(
    "--torchrun",
    type=ShellWords(),
    metavar="OPTIONS",
    help="Start the script by torchrun with these options, such as '--nproc_per_node=8'.",
)
@click.pass_context
def command(ctx: click.Context, what: tuple[str, ...], torchrun: str | None) -> None:
    """Run a script of a checkout without changing the checkout.

    \b
    REPO is the folder of the checkout. [default: the current folder]
    SCRIPT is a script in it. [default: the upstream's training script]
    The arguments after `--` go to the script.

    The training script also has DDO's options (--ddo...), as after `ddo apply`. Other scripts, such as generate.py,
    run unchanged. All scripts run with the fixes that they need for new versions of torch, numpy and scipy, or for a
    CPU; `ddo doctor` lists these fixes. To list the options of the training script:

    \b
        ddo run -- --help

    To start several processes:

    \b
        ddo run --torchrun "--standalone --nproc_per_node=8" train.py -- ARGS
        torchrun --standalone --nproc_per_node=8 -m ddo_plugin run train.py -- ARGS
    """
    from ddo_plugin.base import environment
    from ddo_plugin.base.commands import torchrun_launcher
    from ddo_plugin.base.ranks import under_torchrun
    from ddo_plugin.checkouts import compat, required_packages, run_script
    from ddo_plugin.checkouts.checkout import open_checkout

    repo, script = _repo_and_script(what)
    checkout = open_checkout(repo)
    if script in (None, checkout.upstream.script):
        compat.apply_for_imports()
        imports = required_packages.read_imports(checkout.root, checkout.upstream.script)
        required_packages.refuse_missing_packages({**imports.to_train, **checkout.upstream.needs})
    if torchrun is None and not under_torchrun():
        os.environ.setdefault("MASTER_PORT", str(environment.free_port()))  # upstreams take 29500, in use or not
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
