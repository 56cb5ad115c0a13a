"""The real images that samples are compared with: a file of statistics, or images.

EDM      .npz   mu, sigma
EDM2     .pkl   {"fid": {"mu", "sigma"}, "fd_dinov2": {...}, "num_images"}; read without running its code
OpenAI   .npz   mu, sigma, mu_s, sigma_s (for sFID), and usually arr_0, the images for precision and recall
ours     both   the same; moments of other features by the features' name, in .npz as NAME.mu and NAME.sigma
images          everything that `image_sets.read_images` reads
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddo_plugin.base.archives import open_zip
from ddo_plugin.base.download import local_file
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_write, sha256_file
from ddo_plugin.base.limits import advice, raised
from ddo_plugin.base.reading import parsing
from ddo_plugin.evaluation.image_sets import NPZ_FILE, NPZ_KEY, Images, NpzImages, image_set_sha256, read_images
from ddo_plugin.evaluation.metrics.frechet import Moments

_ROUNDING = 1e-3  # relative to the largest entry
_MOST_FEATURES = 4096  # Inception has 2048, DINOv2 1024
_MOST_ENTRIES = 8  # each takes memory and time to check, even if a small file claims many
INCEPTION = "inception"
# Features and metric -> the name of the moments: EDM2's name of the distance, where it has one
ENTRIES = {(INCEPTION, "fid"): "fid", (INCEPTION, "sfid"): "sfid", ("dinov2", "fid"): "fd_dinov2"}
ARRAYS = {"fid": ("mu", "sigma"), "sfid": ("mu_s", "sigma_s")}  # name of the moments -> names of the arrays in .npz


@dataclass(frozen=True)
class Standard:
    """A set of real images: its moments in some features, its images, or both."""

    source: str
    moments: Mapping[str, Moments] = field(default_factory=dict)  # by the names that `entry_of` returns
    images: Images | None = None
    sha256: str | None = None  # of the file, or of a reference set's array

    def moments_in(self, features: str, metric: str = "fid") -> Moments | None:
        """Return the stored moments in these features, or None if they must be measured on the images."""
        if moments := self.moments.get(entry_of(features, metric)):
            return moments
        if self.images is None:
            raise UserError(
                f"--ref={self.source} holds statistics of {', '.join(map(_features, self.moments))}, not of the "
                f"features {features!r}{'' if metric == 'fid' else f' for {metric}'}; pass images instead"
            )
        return None

    @property
    def description(self) -> dict[str, Any]:
        """Return the source for the result file."""
        return {"source": self.source, "sha256": self.sha256}


def entry_of(features: str, metric: str) -> str:
    """Return the name of the moments that `fid` or `sfid` compares in these features."""
    return ENTRIES.get((features, metric), features if metric == "fid" else f"{features}.{metric}")


def write_statistics(moments: Mapping[str, Moments], to: Path) -> None:
    """Write moments as plain arrays, as .npz or in the form of EDM2's .pkl, which the suffix of `to` says."""
    with atomic_write(to, replace=False) as file:
        if to.suffix == ".npz":
            pairs = (zip(_arrays(name), stored, strict=True) for name, stored in moments.items())
            arrays = {array: values for pair in pairs for array, values in pair}
            np.savez(file, **arrays)  # type: ignore[arg-type] # mypy takes an array for numpy's `allow_pickle`
        else:
            pickle.dump({name: {"mu": mean, "sigma": sigma} for name, (mean, sigma) in moments.items()}, file)


def open_standard(source: str) -> Standard:
    """Open the path or URL that `--ref` names."""
    if Path(source).is_dir():
        return Standard(source, images=read_images(Path(source)), sha256=image_set_sha256(Path(source)))
    path = local_file(source)
    suffix = Path(source).suffix.lower()
    if suffix == ".npz":
        return _read_npz(source, path)
    if suffix == ".pkl":
        return Standard(source, _read_pkl(source, path), sha256=sha256_file(path))
    return Standard(source, images=read_images(path), sha256=sha256_file(path))


def _read_npz(source: str, path: Path) -> Standard:
    with open_zip(path, f"--ref={source}") as archive:
        arrays = {name.removesuffix(".npy") for name in archive.names}
        others = sorted(name.removesuffix(".mu") for name in arrays if name.endswith(".mu"))
        names = [name for name in [*ARRAYS, *others] if arrays.issuperset(_arrays(name))]
        _check_entries(source, names)
        moments = {name: _moments(source, *map(archive.array, _arrays(name))) for name in names}
        images = NpzImages(path) if NPZ_FILE in archive.names else None
    if not (moments or images):
        raise UserError(f"--ref={source} holds neither mu and sigma nor images ({NPZ_KEY}); pass another file")
    return Standard(source, moments, images, sha256_file(path))


def _arrays(name: str) -> tuple[str, str]:
    return ARRAYS.get(name, (f"{name}.mu", f"{name}.sigma"))


def _read_pkl(source: str, path: Path) -> dict[str, Moments]:
    """Read the statistics without running code from the pickle."""
    from ddo_plugin.snapshots.pickles.unpickler import survey

    pickled = survey(path)
    if code := (*pickled.refusals, *(f"the source of {', '.join(names)}" for names in pickled.sources.values())):
        raise UserError(f"--ref={source} could run code ({code[0]}), which statistics do not need, so it is not read")
    entries = pickled.value if isinstance(pickled.value, dict) else {}
    pairs = {
        name: value for name, value in entries.items() if isinstance(value, dict) and {"mu", "sigma"} <= value.keys()
    }
    if pickled.damage or not pairs:
        reason = pickled.damage or "no entry has mu and sigma"
        raise UserError(f"--ref={source} holds no statistics of EDM2 ({reason})")
    _check_entries(source, pairs)
    return {name: _moments(source, value["mu"], value["sigma"]) for name, value in pairs.items()}


def _check_entries(source: str, names: Collection[str]) -> None:
    if len(names) > (most := raised(_MOST_ENTRIES)):
        raise UserError(f"--ref={source}: statistics of {len(names)} kinds, more than {most:,}; {advice()}")


def _moments(source: str, mean: Any, covariance: Any) -> Moments:
    """Check the statistics. Their size is known before they are converted, which takes several times the memory."""
    if not (isinstance(mean, np.ndarray) and isinstance(covariance, np.ndarray)):
        raise UserError(f"--ref={source}: mu and sigma are not arrays of numbers; compute them again")
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"--ref={source}: the shapes of mu {list(mean.shape)} and sigma {list(covariance.shape)} do not match"
        )
    if len(mean) > (most := raised(_MOST_FEATURES)):
        raise UserError(f"--ref={source}: statistics of {len(mean)} features, more than {most:,}; {advice()}")
    with parsing(f"--ref={source}: mu and sigma are not arrays of numbers"):
        mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"--ref={source}: the statistics contain NaN or infinity; compute them again")
    if not _is_covariance(covariance):
        raise UserError(
            f"--ref={source}: sigma is not a covariance (symmetric, no negative variance); compute it again"
        )
    return Moments(mean, covariance)


def _is_covariance(matrix: np.ndarray) -> bool:
    """Return whether this is a covariance, up to the rounding errors of float32."""
    tolerance = _ROUNDING * np.abs(matrix).max(initial=0)
    return bool(np.allclose(matrix, matrix.T, rtol=0, atol=tolerance) and np.linalg.eigvalsh(matrix)[0] >= -tolerance)


def _features(entry: str) -> str:
    names = {
        name: features if metric == "fid" else f"{features} for {metric}"
        for (features, metric), name in ENTRIES.items()
    }
    return names.get(entry, entry)
