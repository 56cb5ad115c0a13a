"""Precision and recall by k-nearest-neighbour manifolds (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddo_plugin.evaluation.metrics.device import device

NEIGHBOURS = 3
BLOCK_NUMBERS = 1 << 25  # number of distances in memory: 256 MiB


class PrecisionRecall(NamedTuple):
    """Precision and recall, from 0 to 1."""

    precision: float  # share of samples within the manifold of the real images
    recall: float  # share of real images within the manifold of the samples


def precision_recall(
    samples: np.ndarray, real: np.ndarray, neighbours: int = NEIGHBOURS, block_numbers: int = BLOCK_NUMBERS
) -> PrecisionRecall:
    """Compare features [N, D] and [M, D]. A manifold is the union of balls from each point to its k-th neighbour."""
    centre = np.asarray(real, np.float64).mean(0)  # squared distances far from 0 would lose digits
    fake_set, real_set = (
        torch.from_numpy(np.asarray(features, np.float64) - centre).to(device()) for features in (samples, real)
    )
    fake_reach, real_reach = (_reach(points, neighbours, block_numbers) for points in (fake_set, real_set))
    within_real, within_fakes = 0, torch.zeros(len(real_set), dtype=torch.bool, device=real_set.device)
    for rows, distances in _blocks(fake_set, real_set, block_numbers):
        within_real += int((distances <= real_reach).any(1).sum())
        within_fakes |= (distances <= fake_reach[rows, None]).any(0)
    return PrecisionRecall(within_real / len(fake_set), float(within_fakes.double().mean()))


def _reach(points: Tensor, neighbours: int, block_numbers: int) -> Tensor:
    """Return [N] the squared distance of each point to its k-th nearest other point."""
    reach = []
    for rows, distances in _blocks(points, points, block_numbers):
        own = torch.arange(rows.start, rows.stop, device=points.device)
        distances[own - rows.start, own] = torch.inf
        reach.append(distances.topk(neighbours, dim=1, largest=False).values[:, -1])  # much faster than `kthvalue`
    return torch.cat(reach)


def _blocks(a: Tensor, b: Tensor, block_numbers: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield squared distances [rows, M] for as many rows of `a` as a block can hold."""
    squares, step = b.square().sum(1), max(1, block_numbers // len(b))
    for first in range(0, len(a), step):
        rows = slice(first, min(first + step, len(a)))
        block = a[rows]
        yield rows, torch.addmm(squares[None], block, b.T, alpha=-2).add_(block.square().sum(1, keepdim=True)).clamp_(0)
