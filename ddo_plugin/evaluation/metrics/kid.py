"""Kernel Inception Distance: the unbiased squared MMD under a cubic kernel (Bińkowski et al. 2018)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ddo_plugin.evaluation.metrics.device import device

SUBSETS, SUBSET_SIZE = 100, 1000


def kernel_distance(
    samples: np.ndarray, real: np.ndarray, *, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> tuple[float, float | None]:
    """Mean and standard deviation over random subsets of features [N, D] and [M, D]. It may be a little below 0.

    Where neither set is larger than a subset, all of both are compared once, and there is no deviation to speak of.
    """
    if max(len(samples), len(real)) <= subset_size:
        return squared_mmd(_points(samples), _points(real)), None
    size = min(subset_size, len(samples), len(real))
    random = np.random.default_rng(seed)
    found = []
    for _ in range(subsets):
        chosen = (one[random.choice(len(one), size, replace=False)] for one in (samples, real))
        found.append(squared_mmd(*map(_points, chosen)))
    return float(np.mean(found)), float(np.std(found))


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate for [N, D] and [M, D]: a point is not compared with itself."""
    within = sum((_kernel(one, one).sum() - _self(one).sum()) / (len(one) * (len(one) - 1)) for one in (x, y))
    return float(within - 2 * _kernel(x, y).mean())


def _points(features: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(features, np.float64)).to(device())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _self(x: Tensor) -> Tensor:
    """The kernel's diagonal."""
    return (x.square().sum(1) / x.shape[1] + 1) ** 3
