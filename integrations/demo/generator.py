"""The demo's networks as generators of samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddo_integrations.demo.data import CLASSES
from ddo_integrations.demo.families import Family, build, load_snapshot
from ddo_plugin import Progress, SampleGenerators, balanced_labels, local_file, sha256_file

BATCH = 500


class DigitsGenerator:
    """A network of the demo that can be sampled."""

    classes, batch = CLASSES, BATCH
    device = torch.device("cpu")

    def __init__(self, family: Family, network: nn.Module, reference: Mapping[str, str]):
        self.family, self.network = family, network
        self.kind, self.settings, self.reference = family.kind, family.sampler, reference
        sample = family.real_samples()[0]
        self.shape, self.dtype = tuple(sample.shape), str(sample.numpy().dtype)

    def sample(self, streams: SampleGenerators, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return a sample for each stream, and the class labels, which are drawn unless they are given."""
        labels = streams.randint(CLASSES) if labels is None else labels
        return self.family.sample(self.network, labels, streams), labels

    def images(self, samples: Tensor) -> Tensor:
        """Return samples as uint8 images."""
        return self.family.to_images(samples)


def generator(source: str, options: Mapping[str, Any]) -> DigitsGenerator:
    """Return the network of a snapshot as a generator."""
    path, family = local_file(source), build(options["family"], options["data"])
    reference = {"source": path.name, "sha256": sha256_file(path)}
    return DigitsGenerator(family, load_snapshot(path, options["family"], family), reference)


def draw(family: Family, network: nn.Module, count: int, seed: int, bar: Progress) -> tuple[Tensor, Tensor]:
    """Return samples with balanced classes, and their labels, as a reference set of this seed holds them."""
    labels = torch.from_numpy(balanced_labels(count, CLASSES))
    parts = []
    for rows in np.array_split(np.arange(count), range(BATCH, count, BATCH)):
        parts.append(family.sample(network, labels[rows], SampleGenerators(seed, rows)))
        bar.update(len(rows))
    return torch.cat(parts), labels
