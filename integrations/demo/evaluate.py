"""Evaluate one of the demo's networks: Fréchet distance, precision and recall over several seeds, and likelihood."""

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
from ddo_plugin import (
    MOST_EVALUATIONS,
    IntegerList,
    Place,
    atomic_write,
    combine_seeds,
    feature_moments,
    features_named,
    frechet_distance,
    in_one_line,
    interruptible,
    precision_recall,
    progress,
    write_json,
)

LIKELIHOOD_DRAWS = 20  # noise levels for each real sample; exact likelihoods do not vary
GRID_ROWS = 4


def real_likelihood(family: Family, network: nn.Module, labels: torch.Tensor) -> float:
    """Return the mean log-likelihood (or its surrogate) of all real samples, with the same noise for every network."""
    torch.manual_seed(0)
    samples = family.real_samples()
    with torch.no_grad():
        draws = [family.log_likelihood(network, samples, labels).mean() for _ in range(LIKELIHOOD_DRAWS)]
    return float(torch.stack(draws).mean())


@click.command()
@click.option("--family", "family_name", type=click.Choice(FAMILIES), required=True, help="Model family.")
@click.option("--data", type=Place(exists=True, file_okay=False), required=True, help="Prepared digits.")
@click.option("--network", type=Place(exists=True, dir_okay=False), required=True, help="Snapshot.")
@click.option("--out", type=Place(dir_okay=False), required=True, help="JSON file to write.")
@click.option("--seeds", type=IntegerList(MOST_EVALUATIONS), required=True, help="Sampling seeds, separated by commas.")
@click.option("--count", type=click.IntRange(min=2), default=2000, show_default=True, help="Samples for each seed.")
@interruptible()
@in_one_line()
def main(family_name: str, data: Path, network: Path, out: Path, seeds: list[int], count: int) -> None:
    """Write Fréchet distance, precision, recall and likelihood of a network.

    The file holds {"score": mean Fréchet distance, "scores": [one for each seed], "spread": standard deviation,
    "metrics": {"fd", "precision", "recall"}, ...}. Recall falls if the samples become less diverse.
    Token models are compared with the digits as their tokenizer renders them, so that they can reach distance 0.
    """
    family, digits = build(family_name, data), Digits(data)
    model = load_snapshot(network, family_name, family)
    features = features_named(f"{FEATURES}{data}").extract
    real = features(family.to_images(family.real_samples()).numpy())
    moments = feature_moments(real)
    scores = []
    with progress(f"{family_name} evaluation", count * len(seeds)) as bar:
        for seed in seeds:
            images = family.to_images(draw(family, model, count, seed, bar)[0]).numpy()
            found = features(images)
            distance = frechet_distance(feature_moments(found), moments)
            scores.append({"seed": seed, "fd": distance, **precision_recall(found, real)._asdict()})
            if seed == seeds[0]:
                with atomic_write(out.with_suffix(".grid.npy")) as file:
                    np.save(file, images[: GRID_ROWS * CLASSES])
    write_json(
        out,
        {
            **combine_seeds(scores, ["fd", "precision", "recall"]),
            "count": count,
            "logp_real": real_likelihood(family, model, torch.from_numpy(digits.labels)),
        },
    )


if __name__ == "__main__":
    main()
