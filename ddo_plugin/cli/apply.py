"""`ddo apply`"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("apply")
@click.argument("repo", type=click.Path(path_type=Path), default=".")
@click.option("--dry-run", is_flag=True, help="Print the change and leave the files alone.")
def command(repo: Path, dry_run: bool) -> None:
    """Insert DDO's lines into the checkout REPO (default: this folder).

    Only lines are inserted, each at its one proven place; a file where that is in doubt is refused. Applying twice
    changes nothing more, `ddo revert` restores the bytes.
    """
    from ddo_plugin.checkouts.checkout import open_checkout
    from ddo_plugin.checkouts.patching.tree import applied, write
    from ddo_plugin.cli._changes import show

    checkout = open_checkout(repo)
    changes = applied(checkout.root, checkout.files())
    if dry_run:
        show(checkout.root, changes)
        return
    write(checkout.root, changes)
    what = "patched" if changes else "patched already, nothing to do"
    click.echo(f"{checkout.upstream.title} in {checkout.root}: {what}")
