"""`ddo revert`"""

from __future__ import annotations

from pathlib import Path

import click

from ddo_plugin.base.option_types import Place


@click.command("revert")
@click.argument("repo", type=Place(), default=".")
@click.option("--dry-run", is_flag=True, help="Print the change as a diff and write nothing.")
def command(repo: Path, dry_run: bool) -> None:
    """Remove DDO's lines from a checkout.

    REPO is the folder of the checkout. [default: the current folder]

    All other lines, including your own edits, are kept.
    """
    from ddo_plugin.checkouts.checkout import open_checkout
    from ddo_plugin.checkouts.patching.tree import reverted, write
    from ddo_plugin.cli._changes import show

    checkout = open_checkout(repo)
    if not dry_run:
        checkout.repair()
    changes = reverted(checkout.root, checkout.files())
    if dry_run:
        show(checkout.root, changes)
        return
    write(checkout.root, changes)
    outcome = "DDO's lines are removed" if changes else "it has none of DDO's lines, nothing to do"
    click.echo(f"{checkout.upstream.title} in {checkout.root}: {outcome}")
