"""`ddo plugins`"""

from __future__ import annotations

import click


@click.command("plugins")
def command() -> None:
    """List the installed plugins and the hooks they implement.

    Prints each plugin's package and version, then the upstreams that all plugins support.
    """
    from ddo_plugin.hooks import plugins

    for listing in plugins.manager().listings:
        click.secho(f"{listing.name}  {listing.distribution} {listing.version}", bold=True)
        if listing.error:
            click.secho(f"  left out: {listing.error}", fg="red")
        for hook in listing.hooks:
            click.echo(f"  {hook}")
    click.echo()
    for upstream in plugins.upstreams():
        click.echo(f"upstream {upstream.name}: {upstream.title}, {upstream.script}")
