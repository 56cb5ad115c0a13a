"""`ddo plugins`"""

from __future__ import annotations

import click


@click.command("plugins")
def command() -> None:
    """List plugins, their versions and the hooks each implements."""
    from ddo_plugin.hooks import plugins

    manager = plugins.manager()
    for listing in manager.listings:
        click.secho(f"{listing.name}  {listing.distribution} {listing.version}", bold=True)
        if listing.error:
            click.secho(f"  left out: {listing.error}", fg="red")
        for hook in listing.hooks:
            click.echo(f"  {hook}")
    click.echo()
    for upstream in plugins.collect(manager.hook.ddo_upstreams()):
        click.echo(f"upstream {upstream.name}: {upstream.title}, {upstream.script}")
