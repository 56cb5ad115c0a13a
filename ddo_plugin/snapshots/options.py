"""TODO."""

from __future__ import annotations

import click


def sha256_option() -> click.Option:
    """For a network that comes from elsewhere."""
    return click.Option(["--ddo-sha256"], metavar="HEX", help="What the network's file must have; checked first.")


def pickle_options() -> list[click.Option]:
    """For upstreams whose networks are pickles, which are programs."""
    return [
        sha256_option(),
        click.Option(["--ddo-trust"], is_flag=True, help="Run the code that the network's file carries."),
    ]
