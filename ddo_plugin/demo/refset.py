"""Make a reference set of one of the demo's networks."""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor, nn

from ddo_plugin import refset
from ddo_plugin.demo.data import CLASSES
from ddo_plugin.demo.families import FAMILIES, Family, build, load_snapshot
from ddo_plugin.files import sha256_file
from ddo_plugin.progress import Progress, progress
from ddo_plugin.sampling import labels as class_labels
from ddo_plugin.sampling.generators import SampleGenerators

BATCH = 500


def draw(family: Family, network: nn.Module, count: int, seed: int, bar: Progress) -> tuple[Tensor, Tensor]:
    """`count` samples with balanced classes, and their labels. Sample i depends on (seed, i) alone."""
    labels = torch.from_numpy(class_labels.uniform(count, CLASSES))
    parts = []
    for first in range(0, count, BATCH):
        rows = range(first, min(first + BATCH, count))
        parts.append(family.sample(network, labels[rows.start : rows.stop], SampleGenerators(seed, rows)))
        bar.update(len(rows))
    return torch.cat(parts), labels


@click.command()
@click.option("--family", "family_name", type=click.Choice(FAMILIES), required=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--network", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", type=click.IntRange(min=1), required=True)
@click.option("--seed", type=int, default=0)
def main(family_name: str, data: Path, network: Path, out: Path, count: int, seed: int) -> None:
    """Sample a network of the demo into a reference set."""
    family = build(family_name, data)
    with progress(f"{family_name} reference set", count) as bar:
        samples, labels = draw(family, load_snapshot(network, family_name, family), count, seed, bar)
    refset.write(
        out,
        samples.numpy(),
        labels.numpy(),
        kind=family.kind,
        reference={"source": network.name, "sha256": sha256_file(network)},
        sampler=family.sampler,
        seed=seed,
    )


if __name__ == "__main__":
    main()
