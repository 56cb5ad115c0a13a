"""Metrics of images against a standard, in features that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.evaluation.image_sets import NpzImages
from ddo_plugin.evaluation.measure import METRICS, Features, features_named, measure
from ddo_plugin.evaluation.metrics.frechet import feature_moments, frechet_distance
from ddo_plugin.evaluation.metrics.inception_score import inception_score
from ddo_plugin.evaluation.metrics.kid import kernel_distance
from ddo_plugin.evaluation.metrics.precision_recall import precision_recall
from ddo_plugin.evaluation.real_statistics import Standard, open_standard


def some_images(path: Path, seed: int, count: int = 60) -> NpzImages:
    draw = np.random.default_rng(seed)
    np.savez(path, arr_0=draw.integers(0, 200 + seed, (count, 4, 4, 3), dtype=np.uint8))
    return NpzImages(path)


@pytest.fixture
def samples(tmp_path: Path) -> NpzImages:
    return some_images(tmp_path / "samples.npz", 1)


@pytest.fixture
def standard(tmp_path: Path) -> Standard:
    some_images(tmp_path / "real.npz", 50, 55)
    return open_standard(str(tmp_path / "real.npz"))


def rows(images: NpzImages, features: Features) -> np.ndarray:
    return features.extract(next(images.batches(1000)))


@pytest.mark.parametrize("batch", [7, 64])
def test_all_metrics_together_are_what_each_is_alone(batch: int, samples, standard, pixels) -> None:
    found = measure(samples, list(METRICS), pixels, standard, batch=batch, seed=5)
    fake, real = rows(samples, pixels), rows(standard.images, pixels)
    logits = pixels.extract.with_logits(next(samples.batches(1000)))[1]
    precision, recall = precision_recall(fake, real)
    score, distance = inception_score(logits, seed=5), kernel_distance(fake, real, seed=5)[0]
    expected = {
        "fid": frechet_distance(feature_moments(fake), feature_moments(real)),
        **dict(zip(("is", "is_std"), score, strict=True)),
        "precision": precision,
        "recall": recall,
        "kid": distance,
    }
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_kernel_distance_has_a_spread_where_there_are_subsets(samples, standard, pixels, monkeypatch) -> None:
    assert measure(samples, ["kid"], pixels, standard).keys() == {"kid"}
    monkeypatch.setattr("ddo_plugin.evaluation.measure.kernel_distance", partial(kernel_distance, subset_size=20))
    assert measure(samples, ["kid"], pixels, standard).keys() == {"kid", "kid_std"}


def test_stored_moments_come_before_the_images_beside_them(samples, standard, pixels) -> None:
    """As in OpenAI's files: the moments are those of all images, arr_0 holds a few."""
    stored = feature_moments(rows(samples, pixels))
    both = replace(standard, moments={"pixels": stored})
    found = measure(samples, ["fid", "pr"], pixels, both)
    assert found["fid"] == pytest.approx(0, abs=1e-6)
    assert found["precision"] == measure(samples, ["pr"], pixels, standard)["precision"]


def test_the_inception_score_needs_no_reference(samples, pixels) -> None:
    assert measure(samples, ["is"], pixels).keys() == {"is", "is_std"}


class AskedError(Exception):
    """Raised by an extractor that was asked, though the refusal could have come first."""


def blind(images: np.ndarray) -> np.ndarray:
    raise AskedError


def test_what_cannot_work_is_refused_before_an_image_is_looked_at(samples, standard, tmp_path) -> None:
    features = Features("blind", blind)
    bare = Standard("a.npz", {"blind": feature_moments(np.eye(4))})
    few = some_images(tmp_path / "few.npz", 1, 3)
    for words, arguments in {
        "fid, kid need real images or their statistics; pass them with --ref": (samples, ["fid", "is", "kid"], None),
        "'blind' have no logits": (samples, ["is"], None),
        "only mean and covariance, but pr need images": (samples, ["fid", "pr"], bare),
        "pr need at least 4 samples, but there are only 3": (few, ["pr"], standard),
    }.items():
        images, metrics, reference = arguments
        with pytest.raises(UserError, match=words):
            measure(images, metrics, features, reference)


def test_statistics_of_another_width_are_refused_at_the_first_batch(samples, pixels) -> None:
    other = Standard("a.npz", {"pixels": feature_moments(np.eye(9))})
    with pytest.raises(UserError, match="--ref holds statistics of 9 features, but 'pixels' has 4"):
        measure(samples, ["fid"], pixels, other, batch=1)


@pytest.mark.parametrize("metric", ["fid", "kid", "pr"])
def test_features_by_channel_do_not_compare_grey_with_colours(metric: str, tmp_path: Path, standard) -> None:
    np.savez(tmp_path / "grey.npz", arr_0=np.zeros((9, 4, 4, 1), np.uint8))
    features = Features("brightness", lambda images: images.mean((2, 3)))
    with pytest.raises(UserError, match=r"'brightness' differ \(1 vs 3 of --ref\): mixed grayscale and RGB"):
        measure(NpzImages(tmp_path / "grey.npz"), [metric], features, standard)


@pytest.mark.parametrize("wrong", [lambda images: images, lambda images: images.reshape(len(images), -1) * np.nan])
def test_an_extractor_that_breaks_its_promise_is_named(wrong, samples, standard) -> None:
    with pytest.raises(UserError, match="'mine' returned features"):
        measure(samples, ["fid"], Features("mine", wrong), standard)


def test_features_that_nobody_knows_are_refused() -> None:
    with pytest.raises(UserError, match="no plugin has the features 'incepton'"):
        features_named("incepton")
