"""`ddo status`"""

from __future__ import annotations

from pathlib import Path

import click

from ddo_plugin.base.option_types import Place

MEANINGS = {
    "pristine": "as upstream published it",
    "patchable": "another version than the patch was made for, but every line has exactly one place",
    "patched": "",
    "conflicting": "",
}


@click.command("status")
@click.argument("repo", type=Place(), default=".")
def command(repo: Path) -> None:
    """Show whether a checkout is patched.

    REPO is the folder of the checkout. [default: the current folder]

    Prints which upstream the checkout comes from, and the state of each file that `ddo apply` changes. Writes nothing.
    """
    from ddo_plugin.checkouts.checkout import open_checkout
    from ddo_plugin.cli._changes import INTERRUPTED

    checkout = open_checkout(repo)
    click.echo(f"{checkout.upstream.title} in {checkout.root}")
    if checkout.upstream.patch is None:
        click.echo("  its integration has no patch")
        return
    for file in checkout.files():
        state = file.inspection.state.value
        remark = file.inspection.reason or MEANINGS[state]
        click.echo(f"  {file.path}: {state}" + (f" ({remark})" if remark else ""))
    if checkout.is_interrupted():
        click.echo(f"  {INTERRUPTED}")
