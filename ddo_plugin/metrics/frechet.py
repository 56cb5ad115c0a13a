"""Fréchet distance between Gaussians fitted to two sets of features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean [D] and covariance [D, D] of a set of features."""

    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Unbiased moments of features [N, D], in float64."""
    features = np.asarray(features, dtype=np.float64)
    return Moments(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(a: Moments, b: Moments) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), by symmetric eigenvalues: singular covariances are no trouble."""
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b.covariance @ root).clip(0)).sum()
    shift = np.square(a.mean - b.mean).sum()
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)
