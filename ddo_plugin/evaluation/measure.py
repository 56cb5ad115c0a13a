"""A chosen set of metrics of images against a standard, in one pass over each."""

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
    "is": "Inception Score; asks for features that classify",
    "pr": "precision and recall; ask for a reference with images",
    "kid": "kernel distance; asks for a reference with images",
}
BY_IMAGES = ("pr", "kid")
BATCH = 64


@dataclass(frozen=True)
class Features:
    """An extractor and the name it goes by."""

    name: str
    extract: FeatureExtractor


def metrics_named(text: str) -> list[str]:
    """What `--metrics` lists."""
    chosen = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in chosen:
        if name not in METRICS:
            raise UserError(f"--metrics={text}: there is no {name!r}; there are {', '.join(METRICS)}")
    return chosen


def features_named(name: str) -> Features:
    """Ask the plugins for a feature extractor."""
    extractor = plugins.manager().hook.ddo_features(name=name)
    if extractor is None:
        raise UserError(
            f"no plugin knows the features {name!r}; `ddo plugins` lists the plugins, 'inception' is built in"
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
    """{"fid", "is", "is_std", "precision", "recall", "kid", "kid_std"}, as far as `metrics` asks for them.

    Sets too small for subsets have no "kid_std".
    Everything that cannot work is refused before a second batch is looked at.
    """
    stored = check_measurable(len(samples), metrics, features, standard)
    keep = not set(metrics).isdisjoint(BY_IMAGES)
    score = InceptionScore(len(samples), seed=seed) if "is" in metrics else None
    found = _gather("samples", samples, features, batch, keep=keep, score=score, width=stored and len(stored.mean))
    results: dict[str, float] = {}
    if standard:
        measured = None
        if standard.images and (keep or not stored):
            measured = _gather("reference", standard.images, features, batch, keep=keep)
            _check_width(features.name, found, measured)
        results = _distances(metrics, found, stored, measured, seed)
    if score:
        results["is"], results["is_std"] = score.get()
    return results


@dataclass
class _Gathered:
    """What one pass over images found."""

    moments: RunningMoments = field(default_factory=RunningMoments)
    batches: list[np.ndarray] = field(default_factory=list)

    def rows(self) -> np.ndarray:
        """All features [N, D]."""
        return np.concatenate(self.batches)


def check_measurable(
    count: int, metrics: Sequence[str], features: Features, standard: Standard | None
) -> Moments | None:
    """Refuse what cannot work with so many samples; returns the standard's moments, if they are asked for and there."""
    compared = [name for name in metrics if name != "is"]
    if compared and standard is None:
        raise UserError(f"{', '.join(compared)} compare with real images; say with which by --ref")
    if "is" in metrics and not isinstance(features.extract, Classifier):
        raise UserError(
            f"the features {features.name!r} give no logits, without which there is no Inception Score; drop 'is'"
        )
    by_images = [name for name in metrics if name in BY_IMAGES]
    if standard and by_images and standard.images is None:
        raise UserError(
            f"--ref={standard.source} holds mean and covariance alone, but {', '.join(by_images)} compare images; name "
            "images, or OpenAI's .npz that holds some"
        )
    least = NEIGHBOURS + 1 if "pr" in metrics else 2
    real = least if standard is None or standard.images is None else len(standard.images)
    for name, there in (("samples", count), ("reference images", real)):
        if there < least:
            raise UserError(f"there are {there} {name}, but {', '.join(metrics)} need at least {least}")
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
    found = _Gathered()
    with progress(f"features of {name}", len(images)) as bar:
        for pixels in images.batches(batch):
            rows, logits = _extract(features, pixels, classify=score is not None)
            if width not in (None, rows.shape[1]):
                raise UserError(
                    f"--ref has statistics of {width} features, but {features.name!r} gives {rows.shape[1]}"
                )
            found.moments.add(rows)
            if score and logits is not None:
                score.add(logits)
            if keep:
                found.batches.append(rows)
            bar.update(len(pixels))
    return found


def _check_width(name: str, samples: _Gathered, real: _Gathered) -> None:
    widths = [len(one.moments.get().mean) for one in (samples, real)]
    if widths[0] != widths[1]:
        raise UserError(
            f"the features {name!r} are {widths[0]} numbers of a sample and {widths[1]} of an image of --ref, as if "
            "one were grey and the other in colour; make them alike"
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
                f"{features.name!r} gave {what} {list(array.shape)} for {len(pixels)} images, or not finite ones"
            )
    return rows, logits


def _distances(
    metrics: Sequence[str], found: _Gathered, stored: Moments | None, measured: _Gathered | None, seed: int
) -> dict[str, float]:
    results: dict[str, float] = {}
    moments = stored or (measured and measured.moments.get())
    if "fid" in metrics and moments:
        results["fid"] = frechet_distance(found.moments.get(), moments)
    if "pr" in metrics and measured:
        results |= precision_recall(found.rows(), measured.rows())._asdict()
    if "kid" in metrics and measured:
        results["kid"], spread = kernel_distance(found.rows(), measured.rows(), seed=seed)
        if spread is not None:
            results["kid_std"] = spread
    return results
