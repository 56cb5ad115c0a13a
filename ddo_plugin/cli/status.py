"""`ddo status`"""

from __future__ import annotations

from pathlib import Path

import click

MEANINGS = {
    "pristine": "as upstream published it",
    "patchable": "not the version that the patch was made for, but every line has its one place",
    "patched": "",
    "conflicting": "",
}


@click.command("status")
@click.argument("repo", type=click.Path(path_type=Path), default=".")
def command(repo: Path) -> None:
    """Tell which upstream the checkout REPO is (default: this folder) and whether it is patched."""
    from ddo_plugin.checkouts.checkout import open_checkout

    checkout = open_checkout(repo)
    click.echo(f"{checkout.upstream.title} in {checkout.root}")
    if checkout.upstream.patch is None:
        click.echo("  no patch comes with its integration")
        return
    for file in checkout.files():
        state = file.found.state.value
        remark = file.found.reason or MEANINGS[state]
        click.echo(f"  {file.path}: {state}" + (f" ({remark})" if remark else ""))
