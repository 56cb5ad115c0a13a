"""Metrics of images against a standard, in features that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.evaluation.image_sets import NpzImages
from ddo_plugin.evaluation.measure import (
    METRICS,
    Features,
    check_measurable,
    features_named,
    measure,
    statistics_of,
    usual_metrics,
)
from ddo_plugin.evaluation.metrics.frechet import feature_moments, frechet_distance
from ddo_plugin.evaluation.metrics.inception_score import inception_score
from ddo_plugin.evaluation.metrics.kid import kernel_distance
from ddo_plugin.evaluation.metrics.precision_recall import precision_recall
from ddo_plugin.evaluation.real_statistics import Standard, open_standard, write_statistics


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
    spatial = [pixels.extract.with_spatial(next(images.batches(1000)))[2] for images in (samples, standard.images)]
    expected = {
        "fid": frechet_distance(feature_moments(fake), feature_moments(real)),
        "sfid": frechet_distance(*map(feature_moments, spatial)),
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


def test_sfid_is_the_formula_of_the_papers_written_out(samples, standard, pixels) -> None:
    """Sums over images in plain numpy; the eigenvalues of Σ_a Σ_b give the trace of its root."""

    def moments(images: NpzImages) -> tuple[np.ndarray, np.ndarray]:
        pixels_of = [image.reshape(-1)[4:11].astype(float) for batch in images.batches(1) for image in batch]
        mean = sum(pixels_of) / len(pixels_of)
        return mean, sum(np.outer(x - mean, x - mean) for x in pixels_of) / (len(pixels_of) - 1)

    (mean, sigma), (real_mean, real_sigma) = moments(samples), moments(standard.images)
    root = np.sqrt(np.linalg.eigvals(sigma @ real_sigma).real).sum()
    expected = ((mean - real_mean) ** 2).sum() + np.trace(sigma) + np.trace(real_sigma) - 2 * root
    assert measure(samples, ["sfid"], pixels, standard) == {"sfid": pytest.approx(expected, rel=1e-9)}


def test_moments_for_sfid_are_stored_apart_and_what_is_not_stored_is_measured(samples, standard, pixels) -> None:
    spatial = feature_moments(pixels.extract.with_spatial(next(samples.batches(1000)))[2])
    both = replace(standard, moments={"pixels.sfid": spatial})
    found = measure(samples, ["fid", "sfid"], pixels, both)
    assert found["sfid"] == pytest.approx(0, abs=1e-6)
    assert found["fid"] == measure(samples, ["fid"], pixels, standard)["fid"] > 1


def test_recall_is_measured_by_default_where_there_are_real_images(standard) -> None:
    assert usual_metrics(standard, "is") == ["fid", "is", "pr"]
    assert usual_metrics(Standard("a.npz", {"fid": feature_moments(np.eye(4))})) == ["fid"]
    assert usual_metrics(None) == ["fid"]


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
@pytest.mark.parametrize("name", ["inception", "dinov2", "digits:/some/folder"])
def test_saved_statistics_measure_like_the_images_they_were_made_of(name, suffix, samples, standard, pixels, tmp_path):
    features = Features(name, pixels.extract)
    path = tmp_path / f"saved{suffix}"
    write_statistics(statistics_of(standard.images, ["fid", "sfid"], features, batch=9), path)
    found = measure(samples, ["fid", "sfid"], features, open_standard(str(path)))
    assert found == pytest.approx(measure(samples, ["fid", "sfid"], features, standard))
    with pytest.raises(UserError, match="not of the features 'mine' for sfid"):
        check_measurable(9, ["sfid"], Features("mine", pixels.extract), open_standard(str(path)))


def test_statistics_are_for_metrics_that_compare_moments(samples, pixels) -> None:
    with pytest.raises(UserError, match="--metrics=pr,kid: statistics are for fid and sfid only"):
        statistics_of(samples, ["fid", "pr", "kid"], pixels)
    with pytest.raises(UserError, match="'blind' keep no positions"):
        statistics_of(samples, ["sfid"], Features("blind", blind))


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
        "fid,kid compares the samples with real images or their statistics; pass them with": (
            samples,
            ["fid", "is", "kid"],
            None,
        ),
        "'blind' have no logits": (samples, ["is"], None),
        "'blind' keep no positions, which sfid needs": (samples, ["sfid"], standard),
        "only mean and covariance, but pr need images": (samples, ["fid", "pr"], bare),
        "pr need at least 4 samples, but there are only 3": (few, ["pr"], standard),
    }.items():
        images, metrics, reference = arguments
        with pytest.raises(UserError, match=words):
            measure(images, metrics, features, reference)


def test_statistics_of_another_width_are_refused_at_the_first_batch(samples, pixels) -> None:
    other = Standard("a.npz", {"pixels": feature_moments(np.eye(9))})
    with pytest.raises(UserError, match="--ref holds statistics of 9 features for fid, but 'pixels' has 4"):
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
