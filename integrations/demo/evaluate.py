"""Judge one of the demo's networks: Fréchet distance over several sampling seeds, likelihood of the real data."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from ddo_integrations.demo.data import CLASSES, Digits
from ddo_integrations.demo.families import Family, build, load_snapshot
from ddo_integrations.demo.generator import draw
from ddo_integrations.demo.names import FAMILIES, FEATURES
from ddo_plugin import atomic_write, frechet_distance, moments, numbers, progress, summary, write_json
from ddo_plugin.hooks import plugins

LIKELIHOOD_DRAWS = 20  # noise levels a real sample is tried at; exact likelihoods do not vary
GRID_ROWS = 4


def real_likelihood(family: Family, network: nn.Module, labels: torch.Tensor) -> float:
    """Mean log-likelihood (or its surrogate) of all real samples, with the same noise for every network."""
    torch.manual_seed(0)
    samples = family.real_samples()
    with torch.no_grad():
        draws = [family.log_likelihood(network, samples, labels).mean() for _ in range(LIKELIHOOD_DRAWS)]
    return float(torch.stack(draws).mean())


@click.command()
@click.option("--family", "family_name", type=click.Choice(FAMILIES), required=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--network", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
@click.option("--seeds", required=True, help="Sampling seeds, separated by commas.")
@click.option("--count", type=click.IntRange(min=2), default=2000, show_default=True, help="Samples a seed.")
def main(family_name: str, data: Path, network: Path, out: Path, seeds: str, count: int) -> None:
    """Write {"score": mean Fréchet distance, "scores": one a seed, "spread": their standard deviation, ...}.

    Token models are compared with the digits as their tokenizer renders them: distance 0 is what they could reach.
    """
    family, digits = build(family_name, data), Digits(data)
    model = load_snapshot(network, family_name, family)
    features = plugins.manager().hook.ddo_features(name=f"{FEATURES}{data}")
    real = moments(features(family.to_images(family.real_samples()).numpy()))
    found, seeded = [], numbers(seeds)
    with progress(f"{family_name} evaluation", count * len(seeded)) as bar:
        for seed in seeded:
            images = family.to_images(draw(family, model, count, seed, bar)[0]).numpy()
            found.append({"seed": seed, "fd": frechet_distance(moments(features(images)), real)})
            if seed == seeded[0]:
                with atomic_write(out.with_suffix(".grid.npy")) as file:
                    np.save(file, images[: GRID_ROWS * CLASSES])
    write_json(
        out,
        {
            **summary(found, ["fd"]),
            "count": count,
            "logp_real": real_likelihood(family, model, torch.from_numpy(digits.labels)),
        },
    )


if __name__ == "__main__":
    main()
