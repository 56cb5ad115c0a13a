"""Precision and recall by k-nearest-neighbour manifolds (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddo_plugin.evaluation.metrics.device import device

NEIGHBOURS = 3
BLOCK_NUMBERS = 1 << 25  # distances held at a time: 256 MiB


class PrecisionRecall(NamedTuple):
    precision: float  # share of samples within the manifold of the real ones
    recall: float  # share of real ones within the manifold of the samples


def precision_recall(
    samples: np.ndarray, real: np.ndarray, neighbours: int = NEIGHBOURS, block_numbers: int = BLOCK_NUMBERS
) -> PrecisionRecall:
    """Of features [N, D] and [M, D]. A set's manifold: balls that reach from each member to its k-th neighbour."""
    centre = np.asarray(real, np.float64).mean(0)  # far from 0 the squared distances would lose digits
    fake_set, real_set = (
        torch.from_numpy(np.asarray(one, np.float64) - centre).to(device()) for one in (samples, real)
    )
    fake_reach, real_reach = (_reach(one, neighbours, block_numbers) for one in (fake_set, real_set))
    within_real, within_fakes = 0, torch.zeros(len(real_set), dtype=torch.bool, device=real_set.device)
    for rows, distances in _blocks(fake_set, real_set, block_numbers):
        within_real += int((distances <= real_reach).any(1).sum())
        within_fakes |= (distances <= fake_reach[rows, None]).any(0)
    return PrecisionRecall(within_real / len(fake_set), float(within_fakes.double().mean()))


def _reach(points: Tensor, neighbours: int, block_numbers: int) -> Tensor:
    """[N] squared distances to the k-th nearest other point."""
    reach = []
    for rows, distances in _blocks(points, points, block_numbers):
        own = torch.arange(rows.start, rows.stop, device=points.device)
        distances[own - rows.start, own] = torch.inf
        reach.append(distances.kthvalue(neighbours, dim=1).values)
    return torch.cat(reach)


def _blocks(a: Tensor, b: Tensor, block_numbers: int) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances [rows, M], as many rows of `a` at a time as the memory allows."""
    squares, step = b.square().sum(1), max(1, block_numbers // len(b))
    for first in range(0, len(a), step):
        rows = slice(first, min(first + step, len(a)))
        block = a[rows]
        yield rows, torch.addmm(squares[None], block, b.T, alpha=-2).add_(block.square().sum(1, keepdim=True)).clamp_(0)
