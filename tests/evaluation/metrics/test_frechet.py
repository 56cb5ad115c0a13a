"""The Fréchet distance against scipy's matrix square root and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ddo_plugin.evaluation.metrics.frechet import Moments, RunningMoments, feature_moments, frechet_distance


def by_sqrtm(a: Moments, b: Moments) -> float:
    """The definition, with a general matrix square root."""
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    return float(np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root.real))


def some_moments(seed: int, dimensions: int = 12, rank: int | None = None) -> Moments:
    random = np.random.default_rng(seed)
    factor = random.normal(size=(dimensions, rank or dimensions))
    return Moments(random.normal(size=dimensions), factor @ factor.T / dimensions)


@pytest.mark.parametrize("seed", range(5))
def test_distance_equals_the_definition_with_scipys_square_root(seed: int) -> None:
    a, b = some_moments(seed), some_moments(seed + 100)
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-100, 100)] * 2, *[st.floats(0, 100)] * 2), min_size=1, max_size=6))
def test_distance_of_diagonal_gaussians_has_a_closed_form(axes: list[tuple[float, float, float, float]]) -> None:
    """Σ (μ_a − μ_b)² + (s_a − s_b)² over the axes, standard deviations 0 included."""
    mean_a, mean_b, scale_a, scale_b = np.array(axes).T
    a, b = Moments(mean_a, np.diag(scale_a**2)), Moments(mean_b, np.diag(scale_b**2))
    expected = np.square(mean_a - mean_b).sum() + np.square(scale_a - scale_b).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-7)


def test_distance_is_symmetric_zero_on_itself_and_positive_elsewhere() -> None:
    a, b = some_moments(0), some_moments(1)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(a, b) > 1


def test_distance_does_not_depend_on_the_basis() -> None:
    a, b = some_moments(0), some_moments(1)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(12, 12)))[0]
    turned = [Moments(turn @ m.mean, turn @ m.covariance @ turn.T) for m in (a, b)]
    assert frechet_distance(*turned) == pytest.approx(frechet_distance(a, b), rel=1e-10)


@pytest.mark.parametrize("ranks", [(3, 12), (12, 3), (3, 5), (1, 1)])
def test_singular_covariances_are_no_trouble(ranks: tuple[int, int]) -> None:
    """As with fewer samples than features; scipy's root would refuse, the eigenvalues of Σ_a Σ_b will do."""
    a, b = (some_moments(seed, rank=rank) for seed, rank in enumerate(ranks))
    found = frechet_distance(a, b)
    cross = np.sqrt(np.linalg.eigvals(a.covariance @ b.covariance).real.clip(0)).sum()
    shift = np.square(a.mean - b.mean).sum()
    assert found == pytest.approx(shift + np.trace(a.covariance + b.covariance) - 2 * cross, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(found, rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)


def test_fewer_samples_than_features_leave_a_set_at_distance_zero_from_itself() -> None:
    features = np.random.default_rng(0).normal(size=(50, 300))
    assert frechet_distance(feature_moments(features), feature_moments(features)) == pytest.approx(0, abs=1e-10)


def test_distance_of_a_known_pair() -> None:
    """3² + 4² between the means; (2 − 1)² + (3 − 1)² between the spreads."""
    a = Moments(np.zeros(2), np.diag([4.0, 9.0]))
    b = Moments(np.array([3.0, 4.0]), np.eye(2))
    assert frechet_distance(a, b) == pytest.approx(25 + 1 + 4)


# -- moments ----------------------------------------------------------------------------------------------------------


def test_moments_are_the_unbiased_ones() -> None:
    found = feature_moments(np.array([[0.0, 0.0], [2.0, 4.0]]))
    np.testing.assert_allclose(found.mean, [1, 2])
    np.testing.assert_allclose(found.covariance, [[2, 4], [4, 8]])


def test_moments_are_taken_in_float64() -> None:
    """Half-precision features far from zero: their float16 mean would overflow."""
    features = (60_000 + 32 * np.random.default_rng(0).integers(-1, 2, (1000, 2))).astype(np.float16)
    found = feature_moments(features)
    assert found.mean.dtype == found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.mean, features.astype(float).mean(0))
    np.testing.assert_allclose(np.diag(found.covariance), features.astype(float).var(0, ddof=1))


def test_one_feature_has_a_one_by_one_covariance() -> None:
    a, b = (feature_moments(np.random.default_rng(seed).normal(seed, 1 + seed, (500, 1))) for seed in (0, 1))
    assert a.covariance.shape == (1, 1)
    by_hand = (a.mean[0] - b.mean[0]) ** 2 + (a.covariance[0, 0] ** 0.5 - b.covariance[0, 0] ** 0.5) ** 2
    assert frechet_distance(a, b) == pytest.approx(by_hand)


def test_samples_of_one_gaussian_get_closer_as_they_grow_in_number() -> None:
    random = np.random.default_rng(0)
    few, many = ([feature_moments(random.normal(size=(n, 4))) for _ in range(2)] for n in (100, 20_000))
    assert 0 < frechet_distance(*many) < 0.1 * frechet_distance(*few)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.floats(-1e6, 1e6))
def test_running_moments_are_those_of_all_batches_together(sizes: list[int], offset: float) -> None:
    features = np.random.default_rng(0).normal(offset, 1, (sum(sizes) + 2, 3))
    running = RunningMoments()
    for batch in np.split(features, np.cumsum(sizes)):
        running.add(batch)
    expected = feature_moments(features)
    np.testing.assert_allclose(running.get().mean, expected.mean, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(running.get().covariance, expected.covariance, rtol=1e-6, atol=1e-9)


def test_running_moments_far_from_zero_keep_what_running_sums_lose() -> None:
    features = np.random.default_rng(0).normal(1e8, 1, (1000, 2))
    running = RunningMoments()
    for batch in np.split(features, 10):
        running.add(batch)
    by_sums = features.T @ features / 999 - np.outer(features.mean(0), features.mean(0)) * (1000 / 999)
    assert np.abs(by_sums - feature_moments(features).covariance).max() > 0.5
    np.testing.assert_allclose(running.get().covariance, feature_moments(features).covariance, rtol=1e-6)
