"""The options of commands that load a network from a file."""

from __future__ import annotations

import click


def sha256_option() -> click.Option:
    """Return the option for networks that come from elsewhere."""
    return click.Option(
        ["--ddo-sha256"], metavar="HEX", help="Expected SHA-256 of the network, verified before loading."
    )


def pickle_options() -> list[click.Option]:
    """Return the options for upstreams whose networks are pickles, which are programs."""
    return [
        sha256_option(),
        click.Option(["--ddo-trust"], is_flag=True, help="Run the Python code that the network's file carries."),
    ]
