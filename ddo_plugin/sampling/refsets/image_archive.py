"""Image folders and zips in the format of upstream's dataset tools, converted to reference sets and back."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddo_plugin.base.archives import open_zip
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_folder, atomic_write, refuse_to_replace, sha256_file
from ddo_plugin.base.image_files import files_below, image_names, png, read_image
from ddo_plugin.base.option_types import LAST_CLASS
from ddo_plugin.base.progress import progress
from ddo_plugin.base.reading import MOST_ITEMS, parse_json, parsing, read_bytes
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.sampling.refsets.format import Refset

LABELS_FILE = "dataset.json"
_ITEMS_PER_IMAGE = 8  # of LABELS_FILE; upstream writes 3


@dataclass(frozen=True)
class Archive:
    """The images of a folder or zip, in upstream's order, with their class numbers if the archive has any."""

    path: Path
    names: list[str]
    labels: np.ndarray | None
    read: Callable[[str], bytes]

    def image(self, name: str) -> np.ndarray:
        """Return an image as uint8 [C, H, W]."""
        return read_image(self.read, name, self.path)


@contextlib.contextmanager
def open_images(path: Path) -> Iterator[Archive]:
    """Open the images of a folder, subfolders included, or of a zip."""
    if path.is_dir():
        yield _archive(path, list(files_below(path)), lambda name: read_bytes(path / name))
        return
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is neither a folder nor a zip of images, or the zip is damaged")
    with open_zip(path) as archive:
        yield _archive(path, archive.names, archive.read)


def _archive(path: Path, names: list[str], read: Callable[[str], bytes]) -> Archive:
    images = image_names(names, path)
    labels = _labels(path, images, read) if LABELS_FILE in names else None
    return Archive(path, images, labels, read)


def _labels(path: Path, images: list[str], read: Callable[[str], bytes]) -> np.ndarray | None:
    with parsing(f"{path}: cannot read {LABELS_FILE} in upstream's format"):
        pairs = parse_json(read(LABELS_FILE), max(MOST_ITEMS, _ITEMS_PER_IMAGE * len(images)))["labels"]
        if pairs is None:
            return None
        by_name = dict(pairs)
    if len(by_name) < len(pairs):
        raise UserError(f"{path}: {LABELS_FILE} lists an image twice")
    for name, label in by_name.items():
        if type(label) is not int or not 0 <= label <= LAST_CLASS:
            raise UserError(f"{path}: {LABELS_FILE} gives {name} the class {label}; classes are the numbers 0, 1, 2, …")
    if missing := [name for name in images if name not in by_name]:
        raise UserError(f"{path}: {LABELS_FILE} has no class for {missing[0]} ({len(missing)} images have none)")
    return np.array([by_name[name] for name in images], dtype=np.int64)


def pack(images: Path, folder: Path, label: int | None, network: Path | None) -> None:
    """Write a reference set of images, reading them one by one. The set appears whole or not at all."""
    refuse_to_replace(folder)
    with open_images(images) as archive:
        labels = archive.labels
        if label is not None:
            if labels is not None:
                raise UserError(f"{images}: {LABELS_FILE} already gives the classes; drop --class")
            labels = np.full(len(archive.names), label, dtype=np.int64)
        first = archive.image(archive.names[0])
        plan = refset.draft(
            (len(archive.names), *first.shape),
            first.dtype,
            labels is not None,
            kind="images",
            reference={"source": str(network or images), "sha256": sha256_file(network) if network else None},
            sampler={"name": "packed", "from": str(images)},
            seed=None,
        )
        with atomic_folder(folder, replace=False) as temporary:
            _fill(temporary / "images.npy", plan, archive)
            if labels is not None:
                np.save(temporary / refset.LABELS, labels)
            refset.seal(temporary, plan)


def _fill(path: Path, plan: dict[str, Any], archive: Archive) -> None:
    shape = tuple(plan["arrays"]["images.npy"]["shape"])
    with path.open("wb") as file, progress("packing", len(archive.names), unit=" images") as bar:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for name in archive.names:
            image = archive.image(name)
            if image.shape != shape[1:]:
                raise UserError(
                    f"{archive.path}: {name} is {image.shape}, but the first image is {shape[1:]}; "
                    "convert them to the same size and number of channels"
                )
            file.write(image.tobytes())
            bar.update()


def unpack(opened: Refset, path: Path) -> None:
    """Write a zip in the format of dataset_tool.py: uncompressed PNGs, and their classes in a dataset.json."""
    samples = opened.samples
    if samples.dtype != np.uint8 or samples.ndim != 4:
        raise UserError(
            f"{opened.path} holds {opened.manifest['kind']} of {samples.dtype}, but upstream's datasets hold pixels; "
            "`ddo sample` writes decoded images"
        )
    if path.suffix != ".zip":
        raise UserError(f"{path}: upstream recognises a dataset by the suffix .zip; choose a name that ends in .zip")
    names = [f"{row // 1000:05d}/img{row:08d}.png" for row in range(len(samples))]
    with (
        atomic_write(path, replace=False) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        progress("unpacking", len(samples), unit=" images") as bar,
    ):
        for name, image in zip(names, samples, strict=True):
            archive.writestr(name, png(image, compress_level=0))
            bar.update()
        numbers = None if opened.labels is None else opened.labels.tolist()
        archive.writestr(LABELS_FILE, labels_json(names, numbers))


def labels_json(names: Sequence[str], numbers: Sequence[int] | None) -> bytes:
    """Return the content of a dataset.json for images and their class numbers."""
    pairs = None if numbers is None else [[name, number] for name, number in zip(names, numbers, strict=True)]
    return json.dumps({"labels": pairs}).encode()


def add_labels(folder: Path, labels: Mapping[str, int]) -> None:
    """Add the classes of images to the dataset.json of their folder. Entries of other images are kept."""
    path = folder / LABELS_FILE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no dataset.json yet, or not a readable one
        earlier = {str(name): int(label) for name, label in json.loads(path.read_bytes())["labels"]}
        labels = {**{name: label for name, label in earlier.items() if (folder / name).exists()}, **labels}
    names = sorted(labels)
    with atomic_write(path) as file:
        file.write(labels_json(names, [labels[name] for name in names]))
