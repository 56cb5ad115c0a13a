"""Fréchet distance between Gaussians fitted to two sets of features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean [D] and covariance [D, D] of a set of features."""

    mean: np.ndarray
    covariance: np.ndarray


def feature_moments(features: np.ndarray) -> Moments:
    """Return the unbiased moments of features [N, D], in float64."""
    features = np.asarray(features, dtype=np.float64)
    return Moments(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))


class RunningMoments:
    """The moments of features that come in batches. Merging batches loses no digits to cancellation."""

    def __init__(self) -> None:
        self.count = 0
        self._mean, self._scatter = np.zeros(1), np.zeros((1, 1))

    def add(self, features: np.ndarray) -> None:
        """Add a batch [N, D]."""
        features = np.asarray(features, dtype=np.float64)
        if not len(features):
            return
        mean = features.mean(0)
        shift, total = mean - self._mean, self.count + len(features)
        centred = features - mean
        self._scatter = (
            self._scatter + centred.T @ centred + np.outer(shift, shift) * (self.count * len(features) / total)
        )
        self._mean = self._mean + shift * (len(features) / total)
        self.count = total

    def get(self) -> Moments:
        """Return mean and covariance of all rows; at least two are needed."""
        return Moments(self._mean, self._scatter / (self.count - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), also for singular covariances.

    tr (Σ_a Σ_b)^½ is the sum of the singular values of Σ_a^½ Σ_b^½. The roots of the eigenvalues of Σ_a Σ_b would
    give a sum that is too large, where eigenvalues should be 0 but are rounding errors.
    """
    cross = np.linalg.norm(_root(a.covariance) @ _root(b.covariance), "nuc")
    shift = np.square(a.mean - b.mean).sum()
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return the symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
