"""`ddo apply`"""

from __future__ import annotations

from pathlib import Path

import click

from ddo_plugin.base.option_types import Place


@click.command("apply")
@click.argument("repo", type=Place(), default=".")
@click.option("--dry-run", is_flag=True, help="Print the change as a diff and write nothing.")
def command(repo: Path, dry_run: bool) -> None:
    """Insert DDO's lines into a checkout.

    REPO is the folder of the checkout. [default: the current folder]

    The lines add DDO's options (--ddo...) to the training script. Nothing else is changed. If it is not certain where
    a line belongs, the command fails and writes nothing. `ddo revert` removes the lines again.
    """
    from ddo_plugin.checkouts.checkout import open_checkout
    from ddo_plugin.checkouts.patching.tree import applied, write
    from ddo_plugin.cli._changes import show

    checkout = open_checkout(repo)
    if not dry_run:
        checkout.repair()
    changes = applied(checkout.root, checkout.files())
    if dry_run:
        show(checkout.root, changes)
        return
    write(checkout.root, changes)
    outcome = "patched" if changes else "patched already, nothing to do"
    click.echo(f"{checkout.upstream.title} in {checkout.root}: {outcome}")
