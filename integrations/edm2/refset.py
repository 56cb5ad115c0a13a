"""Make a reference set of an EDM2 network, of pixels or of final latents: no VAE is needed.

Run it in the checkout: `python -m ddo_integrations.edm2.refset --network=PKL --out=refset --count=50000`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddo_integrations.edm2.networks import load_settled
from ddo_plugin import compat
from ddo_plugin.sampling.refset import make, refset_options


@click.command()
@refset_options(steps=32)
@click.option("--fp16", is_flag=True, help="Half precision on a GPU, as upstream's own sampler.")
def main(network: str, out: Path, count: int, seed: int, steps: int, batch: int, fp16: bool, **options: Any) -> None:
    """Sample a network into a reference set. Sample i depends on (seed, i) alone."""
    compat.apply()
    reference = load_settled(network, options)
    reference.network.use_fp16 = fp16
    make(reference, out, count=count, seed=seed, steps=steps, batch=batch, settings={"fp16": fp16})


if __name__ == "__main__":
    main()
