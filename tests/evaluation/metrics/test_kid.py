"""The kernel distance against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ddo_plugin.evaluation.metrics.kid import kernel_distance, squared_mmd


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    return float((x @ y / len(x) + 1) ** 3)


def by_definition(xs: np.ndarray, ys: np.ndarray) -> float:
    within = sum(np.mean([kernel(a, b) for a, b in itertools.permutations(one, 2)]) for one in (xs, ys))
    return float(within - 2 * np.mean([kernel(x, y) for x in xs for y in ys]))


def some_sets(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(0.3, 1, (count, 5)), draw.normal(size=(count - 7, 5))


def test_the_estimate_equals_the_sum_over_pairs() -> None:
    xs, ys = some_sets()
    assert squared_mmd(torch.from_numpy(xs), torch.from_numpy(ys)) == pytest.approx(by_definition(xs, ys), rel=1e-10)


def test_a_known_pair() -> None:
    """One dimension, points 0, 1 and 1, 2: 1³ + 3³ − 2·(1³ + 1³ + 2³ + 3³)/4."""
    x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[1.0], [2.0]]).double()
    assert squared_mmd(x, y) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_sets_no_larger_than_a_subset_are_compared_once_and_have_no_spread() -> None:
    """Subsets would be the sets themselves, and their spread, 0, would say that nothing is uncertain."""
    xs, ys = some_sets()
    assert len(xs) != len(ys)
    expected = pytest.approx(by_definition(xs, ys), rel=1e-10)
    assert kernel_distance(xs, ys, subset_size=max(len(xs), len(ys))) == (expected, None)
    spread = kernel_distance(xs, ys, subset_size=max(len(xs), len(ys)) - 1)[1]
    assert spread is not None and spread > 0


def test_samples_of_one_distribution_are_at_zero_on_average() -> None:
    """The biased estimate, which counts each point's kernel with itself, stays above."""
    draw = np.random.default_rng(0)
    sets = [(draw.normal(size=(30, 4)), draw.normal(size=(30, 4))) for _ in range(300)]
    unbiased = np.array([squared_mmd(torch.from_numpy(x), torch.from_numpy(y)) for x, y in sets])
    error = unbiased.std() / np.sqrt(len(sets))
    assert abs(unbiased.mean()) < 3 * error
    biased = [np.mean([kernel(a, b) for a in x for b in x]) for x, _ in sets]
    unpaired = [np.mean([kernel(a, b) for a, b in itertools.permutations(x, 2)]) for x, _ in sets]
    assert 2 * (np.mean(biased) - np.mean(unpaired)) > 10 * error


def test_the_seed_decides_the_subsets() -> None:
    xs, ys = some_sets(400)
    found = [kernel_distance(xs, ys, subsets=5, subset_size=50, seed=seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert found[0][0] == pytest.approx(found[2][0], abs=5 * found[0][1])


def test_half_precision_features_do_not_overflow() -> None:
    features = np.full((10, 4), 60_000, np.float16)
    assert np.isfinite(kernel_distance(features, features, subsets=1)[0])
