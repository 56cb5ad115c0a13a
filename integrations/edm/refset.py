"""Make a reference set of an EDM network: balanced classes, Heun's method, straight into our format.

Run it in the checkout: `python -m ddo_integrations.edm.refset --network=PKL --out=refset --count=50000`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.nn.functional import one_hot

from ddo_integrations.edm.networks import denoiser, load_reference
from ddo_plugin import compat, refset
from ddo_plugin.options import pickle_options
from ddo_plugin.progress import progress
from ddo_plugin.sampling import heun, labels
from ddo_plugin.sampling.generators import SampleGenerators


def with_pickle_options(function: Any) -> Any:
    """Add --ddo-sha256 and --ddo-trust."""
    function.__click_params__ = [*getattr(function, "__click_params__", []), *pickle_options()]
    return function


@click.command()
@click.option("--network", required=True, metavar="PKL|URL")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--count", type=click.IntRange(min=1), default=50000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=18, show_default=True, help="Of the sampler.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
@with_pickle_options
def main(network: str, out: Path, count: int, seed: int, steps: int, batch: int, **options: Any) -> None:
    """Sample a network into a reference set. Sample i depends on (seed, i) alone."""
    compat.apply()
    device = torch.device("cpu" if "cpu" in compat.active() else "cuda")
    reference = load_reference(network, options)
    net, info = reference.network.to(device), reference.info
    shape = (info.channels, info.resolution, info.resolution)
    numbers = torch.from_numpy(labels.uniform(count, info.label_dim)) if info.label_dim else None
    images = np.empty((count, *shape), dtype=np.uint8)
    with progress("reference set", count) as bar:
        for first in range(0, count, batch):
            rows = range(first, min(first + batch, count))
            conditions = None
            if numbers is not None:
                conditions = one_hot(numbers[rows.start : rows.stop], info.label_dim).to(device, torch.float32)
            latents = SampleGenerators(seed, rows, device).randn(*shape)
            denoised = heun.sample(denoiser(net, conditions), latents, heun.noise_steps(steps).to(device))
            images[rows.start : rows.stop] = (denoised * 127.5 + 128).clip(0, 255).to(torch.uint8).cpu().numpy()
            bar.update(len(rows))
    refset.write(
        out,
        images,
        None if numbers is None else numbers.numpy(),
        kind="images",
        reference={"source": network, "sha256": reference.sha256},
        sampler={"name": "heun", "steps": steps},
        seed=seed,
    )


if __name__ == "__main__":
    main()
