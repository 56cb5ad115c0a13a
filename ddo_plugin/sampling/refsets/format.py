"""The format of reference sets: samples of the reference on disk, with checksums and how they were made.

A reference set is a folder:

    images.npy | tokens.npy   the samples: uint8 images [N, C, H, W], float latents [N, C, H, W], or tokens [N, L]
    labels.npy                class numbers [N]; absent for an unconditional network
    logp.npy                  optional, only with tokens: float32 [N, L], the log-probability of each token under the
                              reference without guidance, given the label and the tokens before it
    manifest.json             how it was made: reference sha256, sampler settings, seed, counts, sha256 of the arrays
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_folder, sha256_file, write_json
from ddo_plugin.base.reading import parsing, read_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT, VERSION = "ddo-refset", 1
MANIFEST, LABELS, LOGP = "manifest.json", "labels.npy", "logp.npy"
SampleKind = Literal["images", "tokens"]


@dataclass(frozen=True)
class Refset:
    """An open reference set. The arrays are memory-mapped, so rows are read when they are indexed."""

    path: Path
    manifest: Mapping[str, Any]
    samples: np.ndarray
    labels: np.ndarray | None
    logp: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def samples_sha256(self) -> str:
        """Return the sha256 of the samples from the manifest."""
        return str(self.manifest["arrays"][f"{self.manifest['kind']}.npy"]["sha256"])

    def verify(self) -> None:
        """Read all arrays and refuse wrong checksums."""
        for name, stored in self.manifest["arrays"].items():
            if sha256_file(self.path / name) != stored["sha256"]:
                raise UserError(
                    f"{self.path / name} is damaged (its sha256 differs from the manifest); create the set again"
                )


def write(
    path: Path,
    samples: np.ndarray,
    labels: np.ndarray | None,
    *,
    kind: SampleKind,
    reference: Mapping[str, Any],
    sampler: Mapping[str, Any],
    seed: int,
    logp: np.ndarray | None = None,
) -> Refset:
    """Write a reference set, completely or not at all. `reference` holds its `source` and `sha256`."""
    if labels is not None and len(labels) != len(samples):
        raise ValueError(f"{len(labels)} labels for {len(samples)} samples")
    if logp is not None and not _are_logp(logp, samples.shape):
        raise ValueError(f"log-probabilities {logp.shape} {logp.dtype} for samples {samples.shape}")
    plan = draft(
        samples.shape,
        samples.dtype,
        labels is not None,
        kind=kind,
        reference=reference,
        sampler=sampler,
        seed=seed,
        scored=logp is not None,
    )
    with atomic_folder(path, replace=False) as folder:
        np.save(folder / f"{kind}.npy", samples)
        if labels is not None:
            np.save(folder / LABELS, labels)
        if logp is not None:
            np.save(folder / LOGP, logp)
        seal(folder, plan)
    return open_refset(path)


def draft(
    shape: Sequence[int],
    dtype: np.dtype | str,
    labelled: bool,
    *,
    kind: SampleKind,
    reference: Mapping[str, Any],
    sampler: Mapping[str, Any],
    seed: int | None,
    scored: bool = False,
) -> dict[str, Any]:
    """Return the manifest, without checksums, of a set of samples with this shape [N, ...].

    `scored` tokens have their log-probabilities in another array.
    """
    if shape[0] == 0:
        raise ValueError("a reference set needs at least 1 sample")
    arrays = {f"{kind}.npy": {"shape": list(shape), "dtype": str(np.dtype(dtype))}}
    if labelled:
        arrays[LABELS] = {"shape": [shape[0]], "dtype": "int64"}
    if scored:
        arrays[LOGP] = {"shape": list(shape), "dtype": "float32"}
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "count": shape[0],
        "reference": dict(reference),
        "sampler": dict(sampler),
        "seed": seed,
        "arrays": arrays,
    }


def seal(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write the manifest with the checksums of the arrays to the folder that holds them."""
    arrays = {name: {**array, "sha256": sha256_file(folder / name)} for name, array in plan["arrays"].items()}
    write_json(folder / MANIFEST, {**plan, "arrays": arrays})


def is_refset(path: Path) -> bool:
    """Return whether a folder holds a reference set."""
    return (path / MANIFEST).exists()


def open_refset(path: Path) -> Refset:
    """Open a reference set. Refuse arrays that do not match the manifest; `verify` also checks their contents."""
    if not is_refset(path):
        reason = f"it has no {MANIFEST}" if path.exists() else "no such folder"
        raise UserError(f"{path} is not a reference set: {reason}")
    manifest = read_json(path / MANIFEST, "create the set again")
    _check_format(path, manifest)
    _check_fields(path, manifest)
    samples = f"{manifest['kind']}.npy"
    arrays = {name: _map(path / name, stored) for name, stored in manifest["arrays"].items()}
    opened = Refset(path, manifest, arrays[samples], arrays.get(LABELS), arrays.get(LOGP))
    _check_rows(opened)
    _check_logp(opened)
    return opened


def _check_format(path: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path / MANIFEST} is not the manifest of a reference set; create the set again")
    if manifest.get("version") != VERSION:
        raise UserError(
            f"{path} has version {manifest.get('version')} of the format, but this ddo-plugin reads version "
            f"{VERSION}; upgrade ddo-plugin or create the set again"
        )


def _check_fields(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest without the fields that readers of the set use."""
    arrays, samples = manifest.get("arrays"), f"{manifest.get('kind')}.npy"
    optional = {LABELS, LOGP} if manifest.get("kind") == "tokens" else {LABELS}
    fits = {
        "kind": manifest.get("kind") in get_args(SampleKind),
        "count": _is_number(manifest.get("count")),
        "reference": isinstance(manifest.get("reference"), dict),
        "sampler": isinstance(manifest.get("sampler"), dict),
        "seed": "seed" in manifest and (manifest["seed"] is None or _is_number(manifest["seed"])),
        "arrays": isinstance(arrays, dict)
        and samples in arrays
        and arrays.keys() <= {samples} | optional
        and all(isinstance(array, dict) and array.keys() >= {"shape", "dtype", "sha256"} for array in arrays.values()),
    }
    if wrong := [name for name, good in fits.items() if not good]:
        raise UserError(
            f"{path / MANIFEST}: the field {wrong[0]!r} is missing or has a wrong value; create the set again"
        )


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _check_rows(opened: Refset) -> None:
    """Refuse a number of samples or labels that differs from the manifest's count."""
    samples, labels, count = opened.samples, opened.labels, opened.manifest["count"]
    if samples.shape[:1] != (count,) or not samples.size:
        raise UserError(f"{opened.path} holds samples {list(samples.shape)}, but its count is {count}; create it again")
    if labels is None:
        return
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UserError(f"{opened.path / LABELS} is not a list of {count} class numbers; create the set again")


def _check_logp(opened: Refset) -> None:
    """Refuse log-probabilities that are not one number for each token."""
    logp, shape = opened.logp, opened.samples.shape
    if logp is not None and not _are_logp(logp, shape):
        raise UserError(
            f"{opened.path / LOGP} holds {list(logp.shape)} {logp.dtype}, but the log-probabilities of the tokens are "
            f"{list(shape)} float32; create the set again"
        )


def _are_logp(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    return array.shape == shape and array.dtype == np.float32


def _map(file: Path, stored: Mapping[str, Any]) -> np.ndarray:
    with parsing(f"{file} is missing or truncated", "create the set again"):
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would block
            raise ValueError("it is no regular file")
        array = np.lib.format.open_memmap(file, mode="r")
    if list(array.shape) != stored["shape"] or str(array.dtype) != stored["dtype"]:
        content = f"{list(array.shape)} {array.dtype}"
        raise UserError(f"{file} holds {content}, but the manifest says {stored['shape']} {stored['dtype']}")
    return array


class RefsetFakes:
    """Fakes drawn from a reference set with replacement, by torch's global generator."""

    def __init__(self, refset: Refset):
        self.refset = refset
        self.description = {
            "refset": str(refset.path),
            "count": len(refset),
            "seed": refset.manifest["seed"],
            "reference_sha256": refset.manifest["reference"].get("sha256"),
            "sampler": refset.manifest["sampler"],
            "sha256": {name: stored["sha256"] for name, stored in refset.manifest["arrays"].items()},
        }

    @property
    def shape(self) -> tuple[int, ...]:
        return self.refset.samples.shape[1:]

    @cached_property
    def classes(self) -> int:
        return 0 if self.refset.labels is None else int(self.refset.labels.max()) + 1

    def draw(self, count: int) -> tuple[Tensor, Tensor | None]:
        samples, labels, _ = self.draw_scored(count)
        return samples, labels

    def draw_scored(self, count: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Draw the same rows as `draw`; also return their log-probabilities [N, L], or None if the set has none."""
        import torch

        rows = torch.randint(len(self.refset), (count,)).numpy()
        samples = torch.from_numpy(self.refset.samples[rows])
        labels = None if self.refset.labels is None else torch.from_numpy(self.refset.labels[rows]).long()
        logp = None if self.refset.logp is None else torch.from_numpy(self.refset.logp[rows])
        return samples, labels, logp
