"""Inception Score: exp of the mean KL divergence between each image's class probabilities and their average."""

from __future__ import annotations

import numpy as np

SPLITS = 10


class InceptionScore:
    """The Inception Score from batches of logits [N, K], of `count` images in total. Batches are not stored.

    With q = mean p, the average of KL(p ‖ q) over a split is the mean of Σ p log p minus Σ q log q. Two running sums
    are therefore enough. Images are assigned to splits at random: samples are often stored class by class, and a split
    with few classes would have a low score.
    """

    def __init__(self, count: int, splits: int = SPLITS, seed: int = 0):
        self.splits = min(splits, count)
        assigned = np.arange(count) * self.splits // count
        self._split_of = np.random.default_rng(seed).permutation(assigned)
        self._sizes = np.bincount(assigned, minlength=self.splits)
        self._negentropies = np.zeros(self.splits)
        self._probabilities: np.ndarray | None = None  # [splits, K] sums
        self._seen = 0

    def add(self, logits: np.ndarray) -> None:
        """Add the logits of the next images."""
        logs = _log_softmax(np.asarray(logits, dtype=np.float64))
        probabilities = np.exp(logs)
        splits = self._split_of[self._seen : self._seen + len(logs)]
        self._seen += len(logs)
        if self._probabilities is None:
            self._probabilities = np.zeros((self.splits, logs.shape[1]))
        np.add.at(self._probabilities, splits, probabilities)
        np.add.at(self._negentropies, splits, (probabilities * logs).sum(1))

    def get(self) -> tuple[float, float]:
        """Return mean and standard deviation over the splits."""
        if self._probabilities is None or self._seen != len(self._split_of):
            raise ValueError(f"{self._seen} of {len(self._split_of)} images were added")
        average = self._probabilities / self._sizes[:, None]
        logs = np.log(average, out=np.zeros_like(average), where=average > 0)
        scores = np.exp(self._negentropies / self._sizes - (average * logs).sum(1))
        return float(scores.mean()), float(scores.std())


def inception_score(logits: np.ndarray, splits: int = SPLITS, seed: int = 0) -> tuple[float, float]:
    """Return mean and standard deviation over random splits of logits [N, K]."""
    score = InceptionScore(len(logits), splits, seed)
    score.add(logits)
    return score.get()


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
