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
    """Return mean and standard deviation over random subsets of features [N, D] and [M, D]. It can be slightly below 0.

    If neither set is larger than a subset, both whole sets are compared once, and the deviation is None.
    """
    if max(len(samples), len(real)) <= subset_size:
        return squared_mmd(_points(samples), _points(real)), None
    size = min(subset_size, len(samples), len(real))
    random = np.random.default_rng(seed)
    distances = []
    for _ in range(subsets):
        chosen = (features[random.choice(len(features), size, replace=False)] for features in (samples, real))
        distances.append(squared_mmd(*map(_points, chosen)))
    return float(np.mean(distances)), float(np.std(distances))


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate for [N, D] and [M, D]; no point is compared with itself."""
    within = sum((_kernel(z, z).sum() - _self(z).sum()) / (len(z) * (len(z) - 1)) for z in (x, y))
    return float(within - 2 * _kernel(x, y).mean())


def _points(features: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(features, np.float64)).to(device())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _self(x: Tensor) -> Tensor:
    """Return the diagonal of the kernel."""
    return (x.square().sum(1) / x.shape[1] + 1) ** 3
