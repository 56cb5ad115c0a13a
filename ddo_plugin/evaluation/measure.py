"""Measuring samples against real images: a selection of metrics in one pass over each set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.progress import progress
from ddo_plugin.evaluation.image_sets import Images
from ddo_plugin.evaluation.metrics.frechet import Moments, RunningMoments, frechet_distance
from ddo_plugin.evaluation.metrics.inception_score import InceptionScore
from ddo_plugin.evaluation.metrics.kid import kernel_distance
from ddo_plugin.evaluation.metrics.precision_recall import NEIGHBOURS, precision_recall
from ddo_plugin.evaluation.real_statistics import Standard
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Classifier, FeatureExtractor

METRICS = {
    "fid": "Fréchet distance of the features",
    "is": "Inception Score; needs features that classify",
    "pr": "precision and recall; needs reference images",
    "kid": "kernel distance; needs reference images",
}
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
            f"no plugin has the features {name!r}; 'inception' is built in, and `ddo plugins` lists the plugins"
        )
    return Features(name, extractor)


def measure(
    samples: Images,
    metrics: Sequence[str],
    features: Features,
    standard: Standard | None = None,
    *,
    batch: int = BATCH,
    seed: int = 0,
) -> dict[str, float]:
    """Return the chosen metrics: "fid", "is", "is_std", "precision", "recall", "kid" and "kid_std".

    Sets that are too small for subsets have no "kid_std". Combinations that cannot work are refused before the second
    batch is read.
    """
    stored = check_measurable(len(samples), metrics, features, standard)
    keep = not set(metrics).isdisjoint(BY_IMAGES)
    score = InceptionScore(len(samples), seed=seed) if "is" in metrics else None
    gathered = _gather("samples", samples, features, batch, keep=keep, score=score, width=stored and len(stored.mean))
    results: dict[str, float] = {}
    if standard:
        measured = None
        if standard.images and (keep or not stored):
            measured = _gather("reference", standard.images, features, batch, keep=keep)
            _check_width(features.name, gathered, measured)
        results = _distances(metrics, gathered, stored, measured, seed)
    if score:
        results["is"], results["is_std"] = score.get()
    return results


@dataclass
class _Gathered:
    """The features of a pass over images."""

    moments: RunningMoments = field(default_factory=RunningMoments)
    batches: list[np.ndarray] = field(default_factory=list)

    def rows(self) -> np.ndarray:
        """Return all features [N, D]."""
        return np.concatenate(self.batches)


def check_measurable(
    count: int, metrics: Sequence[str], features: Features, standard: Standard | None
) -> Moments | None:
    """Refuse combinations that cannot work. Return the moments that the standard stores, if the metrics need them."""
    compared = [name for name in metrics if name != "is"]
    if compared and standard is None:
        raise UserError(f"metrics {', '.join(compared)} need real images or their statistics; pass them with --ref")
    if "is" in metrics and not isinstance(features.extract, Classifier):
        raise UserError(
            f"the features {features.name!r} have no logits, which the Inception Score needs; drop 'is' from --metrics"
        )
    by_images = [name for name in metrics if name in BY_IMAGES]
    if standard and by_images and standard.images is None:
        raise UserError(
            f"--ref={standard.source} holds only mean and covariance, but {', '.join(by_images)} need images; pass "
            "images or an .npz of OpenAI, which holds images too"
        )
    least = NEIGHBOURS + 1 if "pr" in metrics else 2
    real = least if standard is None or standard.images is None else len(standard.images)
    for name, number in (("samples", count), ("reference images", real)):
        if number < least:
            raise UserError(f"{', '.join(metrics)} need at least {least} {name}, but there are only {number}")
    return standard.moments_in(features.name) if standard and "fid" in metrics else None


def _gather(
    name: str,
    images: Images,
    features: Features,
    batch: int,
    *,
    keep: bool,
    score: InceptionScore | None = None,
    width: int | None = None,
) -> _Gathered:
    gathered = _Gathered()
    with progress(f"features of {name}", len(images)) as bar:
        for pixels in images.batches(batch):
            rows, logits = _extract(features, pixels, classify=score is not None)
            if width not in (None, rows.shape[1]):
                raise UserError(
                    f"--ref holds statistics of {width} features, but {features.name!r} has {rows.shape[1]}"
                )
            gathered.moments.add(rows)
            if score and logits is not None:
                score.add(logits)
            if keep:
                gathered.batches.append(rows)
            bar.update(len(pixels))
    return gathered


def _check_width(name: str, samples: _Gathered, real: _Gathered) -> None:
    widths = [len(gathered.moments.get().mean) for gathered in (samples, real)]
    if widths[0] != widths[1]:
        raise UserError(
            f"sizes of the features {name!r} differ ({widths[0]} vs {widths[1]} of --ref): mixed grayscale and RGB?"
        )


def _extract(features: Features, pixels: np.ndarray, *, classify: bool) -> tuple[np.ndarray, np.ndarray | None]:
    extract, logits = features.extract, None
    if classify and isinstance(extract, Classifier):
        rows, logits = extract.with_logits(pixels)
    else:
        rows = extract(pixels)
    for what, array in (("features", rows), ("logits", logits)):
        if array is not None and (array.ndim != 2 or len(array) != len(pixels) or not np.isfinite(array).all()):
            raise UserError(
                f"{features.name!r} returned {what} {list(array.shape)}, not a finite row per image ({len(pixels)})"
            )
    return rows, logits


def _distances(
    metrics: Sequence[str], samples: _Gathered, stored: Moments | None, measured: _Gathered | None, seed: int
) -> dict[str, float]:
    results: dict[str, float] = {}
    moments = stored or (measured and measured.moments.get())
    if "fid" in metrics and moments:
        results["fid"] = frechet_distance(samples.moments.get(), moments)
    if "pr" in metrics and measured:
        results |= precision_recall(samples.rows(), measured.rows())._asdict()
    if "kid" in metrics and measured:
        results["kid"], spread = kernel_distance(samples.rows(), measured.rows(), seed=seed)
        if spread is not None:
            results["kid_std"] = spread
    return results
