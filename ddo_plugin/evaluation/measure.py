"""Measuring samples against real images: a selection of metrics in one pass over each set."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.progress import progress
from ddo_plugin.evaluation.image_sets import Images
from ddo_plugin.evaluation.metrics.frechet import Moments, RunningMoments, frechet_distance
from ddo_plugin.evaluation.metrics.inception_score import InceptionScore
from ddo_plugin.evaluation.metrics.kid import kernel_distance
from ddo_plugin.evaluation.metrics.precision_recall import NEIGHBOURS, precision_recall
from ddo_plugin.evaluation.real_statistics import Standard, entry_of, open_standard
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Classifier, FeatureExtractor, SpatialExtractor

METRICS = {
    "fid": "Fréchet distance of the features",
    "sfid": "Fréchet distance of the spatial features; needs features that keep positions",
    "is": "Inception Score; needs features that classify",
    "pr": "precision and recall; needs reference images",
    "kid": "kernel distance; needs reference images",
}
BY_MOMENTS = ("fid", "sfid")
BY_IMAGES = ("pr", "kid")
BATCH = 64


@dataclass(frozen=True)
class Features:
    """A feature extractor and its name."""

    name: str
    extract: FeatureExtractor


def metrics_named(text: str) -> list[str]:
    """Return the metrics that `--metrics` lists."""
    chosen = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in chosen:
        if name not in METRICS:
            raise UserError(f"--metrics={text}: unknown metric {name!r}; choose from {', '.join(METRICS)}")
    return chosen


def features_named(name: str) -> Features:
    """Return the feature extractor of this name from the plugins."""
    extractor = plugins.manager().hook.ddo_features(name=name)
    if extractor is None:
        raise UserError(
            f"no plugin has the features {name!r}; 'inception' and 'dinov2' are built in, and `ddo plugins` lists the "
            "plugins"
        )
    return Features(name, extractor)


def usual_metrics(standard: Standard | None, *others: str) -> list[str]:
    """Return the default metrics: fid, `others`, and precision and recall if there are real images to compare with."""
    return ["fid", *others, *(["pr"] if standard and standard.images else [])]


def measure(
    samples: Images,
    metrics: Sequence[str],
    features: Features,
    standard: Standard | None = None,
    *,
    batch: int = BATCH,
    seed: int = 0,
) -> dict[str, float]:
    """Return the chosen metrics: "fid", "sfid", "is", "is_std", "precision", "recall", "kid" and "kid_std".

    Sets that are too small for subsets have no "kid_std". Combinations that cannot work are refused before the second
    batch is read.
    """
    stored = check_measurable(len(samples), metrics, features, standard)
    keep, spatial = not set(metrics).isdisjoint(BY_IMAGES), "sfid" in metrics
    score = InceptionScore(len(samples), seed=seed) if "is" in metrics else None
    gathered = _gather("samples", samples, features, batch, keep=keep, spatial=spatial, score=score, stored=stored)
    results: dict[str, float] = {}
    if standard:
        measured = None
        missing = [name for name in BY_MOMENTS if name in metrics and name not in stored]
        if standard.images and (keep or missing):
            measured = _gather("reference", standard.images, features, batch, keep=keep, spatial="sfid" in missing)
            _check_width(features.name, gathered, measured)
        results = _distances(metrics, gathered, stored, measured, seed)
    if score:
        results["is"], results["is_std"] = score.get()
    return results


def statistics_of(
    images: Images, metrics: Sequence[str], features: Features, *, batch: int = BATCH
) -> dict[str, Moments]:
    """Return the moments of images, which `metrics` compare samples with, by their names in files of statistics."""
    if others := [name for name in metrics if name not in BY_MOMENTS]:
        raise UserError(f"--metrics={','.join(others)}: statistics are for {' and '.join(BY_MOMENTS)} only; drop these")
    _check_spatial(metrics, features)
    _check_count(metrics, "images", len(images), 2)
    gathered = _gather("images", images, features, batch, keep=False, spatial="sfid" in metrics)
    return {entry_of(features.name, name): gathered.moments_for(name) for name in metrics}


@dataclass
class _Gathered:
    """The features of a pass over images."""

    moments: RunningMoments = field(default_factory=RunningMoments)
    spatial: RunningMoments = field(default_factory=RunningMoments)
    batches: list[np.ndarray] = field(default_factory=list)

    def rows(self) -> np.ndarray:
        """Return all features [N, D]."""
        return np.concatenate(self.batches)

    def moments_for(self, metric: str) -> Moments:
        """Return the moments that `fid` or `sfid` compares."""
        return (self.spatial if metric == "sfid" else self.moments).get()


def check_measurable(
    count: int, metrics: Sequence[str], features: Features, standard: Standard | None
) -> Mapping[str, Moments]:
    """Refuse combinations that cannot work. Return the stored moments by the metric that needs them."""
    check_reference(metrics, standard)
    if "is" in metrics and not isinstance(features.extract, Classifier):
        raise UserError(
            f"the features {features.name!r} have no logits, which the Inception Score needs; drop 'is' from --metrics"
        )
    _check_spatial(metrics, features)
    by_images = [name for name in metrics if name in BY_IMAGES]
    if standard and by_images and standard.images is None:
        raise UserError(
            f"--ref={standard.source} holds only mean and covariance, but {', '.join(by_images)} need images; pass "
            "images or an .npz of OpenAI, which holds images too"
        )
    least = NEIGHBOURS + 1 if "pr" in metrics else 2
    _check_count(metrics, "samples", count, least)
    if standard is None:
        return {}
    if standard.images is not None:
        _check_count(metrics, "reference images", len(standard.images), least)
    stored = {name: standard.moments_in(features.name, name) for name in BY_MOMENTS if name in metrics}
    return {name: moments for name, moments in stored.items() if moments}


def check_reference(metrics: Sequence[str], standard: Standard | None) -> None:
    """Refuse metrics that need a reference if there is none. This needs no features."""
    compared = [name for name in metrics if name != "is"]
    if compared and standard is None:
        raise UserError(
            f"--metrics={','.join(compared)} compares the samples with real images or their statistics; pass them with "
            "--ref"
        )


def check_elsewhere(count: int, metrics: Sequence[str], features: str, ref: str) -> None:
    """Refuse what `ddo eval` would refuse for so many samples, without keeping the extractor's GPU memory.

    This runs in another process, because an extractor keeps its memory as long as its process lives.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere:
        elsewhere.submit(_check_named, count, metrics, features, ref).result()


def _check_named(count: int, metrics: Sequence[str], features: str, ref: str) -> None:
    check_measurable(count, metrics, features_named(features), open_standard(ref))


def _check_spatial(metrics: Sequence[str], features: Features) -> None:
    if "sfid" in metrics and not isinstance(features.extract, SpatialExtractor):
        raise UserError(
            f"the features {features.name!r} keep no positions, which sfid needs; drop 'sfid' from --metrics"
        )


def _check_count(metrics: Sequence[str], what: str, count: int, least: int) -> None:
    if count < least:
        raise UserError(f"{', '.join(metrics)} need at least {least} {what}, but there are only {count}")


def _gather(
    name: str,
    images: Images,
    features: Features,
    batch: int,
    *,
    keep: bool,
    spatial: bool,
    score: InceptionScore | None = None,
    stored: Mapping[str, Moments] | None = None,
) -> _Gathered:
    gathered = _Gathered()
    with progress(f"features of {name}", len(images)) as bar:
        for pixels in images.batches(batch):
            extracted = _extract(features, pixels, classify=score is not None, spatial=spatial)
            for metric, moments in (stored or {}).items():
                rows = extracted.features if metric == "fid" else extracted.spatial
                if rows is not None and rows.shape[1] != len(moments.mean):
                    raise UserError(
                        f"--ref holds statistics of {len(moments.mean)} features for {metric}, but {features.name!r} "
                        f"has {rows.shape[1]}"
                    )
            gathered.moments.add(extracted.features)
            if extracted.spatial is not None:
                gathered.spatial.add(extracted.spatial)
            if score and extracted.logits is not None:
                score.add(extracted.logits)
            if keep:
                gathered.batches.append(extracted.features)
            bar.update(len(pixels))
    return gathered


def _check_width(name: str, samples: _Gathered, real: _Gathered) -> None:
    widths = [len(gathered.moments.get().mean) for gathered in (samples, real)]
    if widths[0] != widths[1]:
        raise UserError(
            f"sizes of the features {name!r} differ ({widths[0]} vs {widths[1]} of --ref): mixed grayscale and RGB?"
        )


class _Extracted(NamedTuple):
    features: np.ndarray
    logits: np.ndarray | None = None
    spatial: np.ndarray | None = None


def _extract(features: Features, pixels: np.ndarray, *, classify: bool, spatial: bool) -> _Extracted:
    extract = features.extract
    if spatial and isinstance(extract, SpatialExtractor):
        extracted = _Extracted(*extract.with_spatial(pixels))
    elif classify and isinstance(extract, Classifier):
        extracted = _Extracted(*extract.with_logits(pixels))
    else:
        extracted = _Extracted(extract(pixels))
    for what, array in extracted._asdict().items():
        if array is not None and (array.ndim != 2 or len(array) != len(pixels) or not np.isfinite(array).all()):
            raise UserError(
                f"{features.name!r} returned {what} {list(array.shape)}, not a finite row per image ({len(pixels)})"
            )
    return extracted


def _distances(
    metrics: Sequence[str],
    samples: _Gathered,
    stored: Mapping[str, Moments],
    measured: _Gathered | None,
    seed: int,
) -> dict[str, float]:
    results: dict[str, float] = {}
    for name in BY_MOMENTS:
        moments = stored.get(name) or (measured and measured.moments_for(name) if name in metrics else None)
        if moments:
            results[name] = frechet_distance(samples.moments_for(name), moments)
    if "pr" in metrics and measured:
        results |= precision_recall(samples.rows(), measured.rows())._asdict()
    if "kid" in metrics and measured:
        results["kid"], spread = kernel_distance(samples.rows(), measured.rows(), seed=seed)
        if spread is not None:
            results["kid_std"] = spread
    return results
