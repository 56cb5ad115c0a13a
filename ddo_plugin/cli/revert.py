"""`ddo revert`"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("revert")
@click.argument("repo", type=click.Path(path_type=Path), default=".")
@click.option("--dry-run", is_flag=True, help="Print the change and leave the files alone.")
def command(repo: Path, dry_run: bool) -> None:
    """Take DDO's lines out of the checkout REPO (default: this folder) and leave every other byte as it is."""
    from ddo_plugin.checkouts.checkout import open_checkout
    from ddo_plugin.checkouts.patching.tree import reverted, write
    from ddo_plugin.cli._changes import show

    checkout = open_checkout(repo)
    changes = reverted(checkout.root, checkout.files())
    if dry_run:
        show(checkout.root, changes)
        return
    write(checkout.root, changes)
    what = "DDO's lines are out" if changes else "none of DDO's lines are in it, nothing to do"
    click.echo(f"{checkout.upstream.title} in {checkout.root}: {what}")
