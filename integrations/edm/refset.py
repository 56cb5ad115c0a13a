"""Make a reference set of an EDM network.

Run it in the checkout: `python -m ddo_integrations.edm.refset --network=PKL --out=refset --count=50000`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddo_plugin import compat
from ddo_plugin.reference import load_reference
from ddo_plugin.sampling.refset import make, refset_options


@click.command()
@refset_options(steps=18)
def main(network: str, out: Path, count: int, seed: int, steps: int, batch: int, **options: Any) -> None:
    """Sample a network into a reference set. Sample i depends on (seed, i) alone."""
    compat.apply()
    make(load_reference(network, options), out, count=count, seed=seed, steps=steps, batch=batch)


if __name__ == "__main__":
    main()
