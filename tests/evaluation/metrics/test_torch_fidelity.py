"""The metrics against torch-fidelity's, on the same features."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ddo_plugin.evaluation.metrics.frechet import feature_moments, frechet_distance
from ddo_plugin.evaluation.metrics.inception_score import inception_score
from ddo_plugin.evaluation.metrics.kid import kernel_distance
from ddo_plugin.evaluation.metrics.precision_recall import precision_recall

COUNT, DIMENSIONS = 400, 24
QUIET = {"verbose": False}


@pytest.fixture
def theirs(torch_fidelity: ModuleType) -> Any:
    return lambda name: importlib.import_module(f"torch_fidelity.metric_{name}")


def some_features(count: int = COUNT, dimensions: int = DIMENSIONS) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.gamma(1.0, 1.0, (count, dimensions)), draw.gamma(1.2, 0.9, (count, dimensions))


def frechet_of(module: ModuleType, samples: np.ndarray, real: np.ndarray) -> float:
    statistics = [module.fid_features_to_statistics(torch.from_numpy(one)) for one in (samples, real)]
    return module.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def test_the_frechet_distance_agrees(theirs) -> None:
    samples, real = some_features()
    expected = frechet_of(theirs("fid"), samples, real)
    assert frechet_distance(feature_moments(samples), feature_moments(real)) == pytest.approx(expected, rel=1e-9)


def test_with_fewer_samples_than_features_ours_stays_exact_where_theirs_drifts(theirs) -> None:
    """A set's distance from itself is 0; roots of eigenvalues that are rounding errors add up to something else."""
    samples, _ = some_features(30, 300)
    assert abs(frechet_of(theirs("fid"), samples, samples)) > 1e-6
    assert frechet_distance(feature_moments(samples), feature_moments(samples)) == pytest.approx(0, abs=1e-9)


def test_the_inception_score_agrees_on_one_split(theirs) -> None:
    logits, _ = some_features()
    found = theirs("isc").isc_features_to_metric(torch.from_numpy(logits), splits=1)
    assert inception_score(logits, splits=1)[0] == pytest.approx(found["inception_score_mean"], rel=1e-12)


def test_the_inception_score_agrees_on_ten_random_splits_as_far_as_chance_allows(theirs) -> None:
    logits, _ = some_features()
    found = theirs("isc").isc_features_to_metric(torch.from_numpy(logits))
    mean, spread = inception_score(logits)
    assert mean == pytest.approx(found["inception_score_mean"], abs=spread)
    assert spread == pytest.approx(found["inception_score_std"], rel=1)


def test_the_kernel_distance_agrees(theirs) -> None:
    samples, real = some_features()
    tensors = [torch.from_numpy(one) for one in (samples, real)]
    found = theirs("kid").kid_features_to_metric(*tensors, kid_subsets=1, kid_subset_size=COUNT, **QUIET)
    mean, _ = kernel_distance(samples, real, subsets=1)
    assert mean == pytest.approx(found["kernel_inception_distance_mean"], rel=1e-9)


def test_precision_and_recall_agree(theirs) -> None:
    samples, real = some_features()
    tensors = [torch.from_numpy(one) for one in (samples, real)]
    found = theirs("prc").prc_features_to_metric(*tensors, **QUIET)
    assert 0.1 < found["recall"] < 0.99
    assert precision_recall(samples, real) == pytest.approx((found["precision"], found["recall"]))
