"""Precision and recall against their definition, point by point."""

from __future__ import annotations

import numpy as np
import pytest

from ddo_plugin.evaluation.metrics.precision_recall import BLOCK_NUMBERS, precision_recall


def by_definition(samples: np.ndarray, real: np.ndarray, k: int = 3) -> tuple[float, float]:
    def covered(points: np.ndarray, others: np.ndarray) -> float:
        reach = [sorted(np.linalg.norm(others - one, axis=1))[k] for one in others]  # the 0-th is the point itself
        return float(np.mean([(np.linalg.norm(others - point, axis=1) <= reach).any() for point in points]))

    return covered(samples, real), covered(real, samples)


def some_sets(dimensions: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(0.5, 0.7, (150, dimensions)), draw.normal(size=(120, dimensions))


@pytest.mark.parametrize("block_numbers", [1, 500, BLOCK_NUMBERS])
def test_both_equal_the_definition_whatever_the_block(block_numbers: int) -> None:
    samples, real = some_sets()
    expected = by_definition(samples, real)
    assert 0.1 < min(expected) < max(expected) < 0.99
    assert precision_recall(samples, real, block_numbers=block_numbers) == pytest.approx(expected)


def test_a_line_can_be_checked_by_hand() -> None:
    """k = 1. Real balls: [-1, 1], [0, 2], [9, 11], [10, 12]; samples': [-0.5, 1.5], [0.5, 2.5], [1.5, 198.5]."""
    real = np.array([[0.0], [1], [10], [11]])
    samples = np.array([[0.5], [1.5], [100]])
    assert precision_recall(samples, real, neighbours=1) == (2 / 3, 1.0)


def test_swapping_the_sets_swaps_the_two() -> None:
    samples, real = some_sets()
    assert precision_recall(real, samples) == precision_recall(samples, real)[::-1]


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    samples, _ = some_sets()
    assert precision_recall(samples, samples) == (1, 1)
    assert precision_recall(samples, samples + 100) == (0, 0)


def test_samples_of_one_mode_are_precise_and_recall_little() -> None:
    draw = np.random.default_rng(1)
    real = np.concatenate([draw.normal(centre, 1, (200, 2)) for centre in (0, 50)])
    found = precision_recall(draw.normal(0, 0.5, (400, 2)), real)
    assert found.precision > 0.95
    assert found.recall < 0.51


def test_features_far_from_zero_lose_no_digits() -> None:
    """Squared distances of float32 features at 10,000 would be off by more than the distances themselves."""
    samples, real = some_sets()
    expected = precision_recall(samples, real)
    assert precision_recall(samples + 1e4, real + 1e4) == pytest.approx(expected)
    far = [one.astype(np.float32) + np.float32(1e4) for one in (samples, real)]
    squares = (far[0] ** 2).sum(1)[:, None] + (far[1] ** 2).sum(1) - 2 * far[0] @ far[1].T
    assert np.abs(squares - np.square(samples[:, None] - real).sum(2)).max() > 10


def test_points_that_coincide_reach_no_further_than_themselves() -> None:
    real = np.zeros((10, 2))
    assert precision_recall(np.array([[0.0, 0], [1e-3, 0], [2e-3, 0], [0, 1e-3]]), real).precision == 0.25
