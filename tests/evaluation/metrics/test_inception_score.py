"""The Inception Score against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddo_plugin.evaluation.metrics.inception_score import InceptionScore, inception_score


def some_logits(count: int = 500, classes: int = 7, scale: float = 3.0) -> np.ndarray:
    return scale * np.random.default_rng(0).normal(size=(count, classes))


def by_definition(logits: np.ndarray) -> float:
    p = torch.from_numpy(logits).softmax(1)
    return float((p * (p.log() - p.mean(0).log())).sum(1).mean().exp())


def test_one_split_equals_the_definition() -> None:
    assert inception_score(some_logits(), splits=1) == (pytest.approx(by_definition(some_logits()), rel=1e-12), 0.0)


def test_certain_and_evenly_spread_classes_score_their_number() -> None:
    assert inception_score(1000 * np.eye(5).repeat(20, 0), splits=1)[0] == pytest.approx(5)


@pytest.mark.parametrize("logits", [np.zeros((50, 4)), np.tile([900.0, 0, -900], (50, 1))])
def test_images_that_are_all_alike_score_one(logits: np.ndarray) -> None:
    """Probabilities that round to 0 included."""
    assert inception_score(logits)[0] == pytest.approx(1)


def test_batches_make_no_difference() -> None:
    logits, score = some_logits(), InceptionScore(500, seed=3)
    for first in range(0, 500, 64):
        score.add(logits[first : first + 64])
    assert score.get() == pytest.approx(inception_score(logits, seed=3), rel=1e-12)


def test_splits_are_as_even_as_they_can_be() -> None:
    sizes = InceptionScore(103)._sizes
    assert sizes.sum() == 103
    assert set(sizes) == {10, 11}


def test_images_sorted_by_class_score_as_shuffled_ones() -> None:
    """Splits of neighbours would hold one class each, and their score would be 1."""
    logits = 20 * np.eye(10).repeat(100, 0)
    neighbours = np.mean([by_definition(part) for part in np.split(logits, 10)])
    assert neighbours == pytest.approx(1, abs=1e-3)
    assert inception_score(logits)[0] == pytest.approx(10, rel=0.1)


def test_fewer_images_than_splits_are_no_trouble() -> None:
    assert inception_score(some_logits(3))[0] == pytest.approx(1)


def test_a_score_of_half_the_images_is_none() -> None:
    score = InceptionScore(10)
    score.add(some_logits(5))
    with pytest.raises(ValueError, match="5 of 10"):
        score.get()
