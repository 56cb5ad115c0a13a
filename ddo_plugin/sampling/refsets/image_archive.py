"""Folders and zips of images as upstream's tools leave them, to reference sets and back."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_folder, atomic_write, refuse_to_replace, sha256_file
from ddo_plugin.base.option_types import LAST_CLASS
from ddo_plugin.base.progress import progress
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.sampling.refsets.format import Refset

if TYPE_CHECKING:
    from PIL import Image

LABELS_FILE = "dataset.json"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True)
class Archive:
    """Images by name, in upstream's order, and the class of each if they have classes."""

    names: list[str]
    labels: np.ndarray | None
    read: Callable[[str], bytes]

    def image(self, name: str) -> np.ndarray:
        """uint8 [C, H, W]."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.read(name))) as image:
                pixels = np.asarray(_grey_or_colour(image, name))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{name} cannot be read as an image ({error}); make it again") from None
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _grey_or_colour(image: Image.Image, name: str) -> Image.Image:
    """Eight bits a channel, one channel or three. What would be lost silently is refused."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode not in ("1", "P", "CMYK", "YCbCr") or "transparency" in image.info:
        raise UserError(
            f"{name} is {image.mode}: no grey or colours of 8 bits without transparency; make it grey or RGB"
        )
    return image.convert("L" if image.mode == "1" else "RGB")


@contextlib.contextmanager
def open_images(path: Path) -> Iterator[Archive]:
    """A folder, searched whole, or a zip."""
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
        yield _archive(path, list(files), lambda name: files[name].read_bytes())
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is neither a folder nor a zip of images ({error})") from None
    with archive:
        yield _archive(path, archive.namelist(), archive.read)


def _archive(path: Path, names: list[str], read: Callable[[str], bytes]) -> Archive:
    images = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
    if not images:
        raise UserError(f"{path} holds no images ({', '.join(SUFFIXES)})")
    labels = _labels(path, images, read) if LABELS_FILE in names else None
    return Archive(images, labels, read)


def _labels(path: Path, images: list[str], read: Callable[[str], bytes]) -> np.ndarray | None:
    try:
        pairs = json.loads(read(LABELS_FILE))["labels"]
        if pairs is None:
            return None
        by_name = dict(pairs)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its {LABELS_FILE} is not as upstream writes it ({error!r})") from None
    if len(by_name) < len(pairs):
        raise UserError(f"{path}: its {LABELS_FILE} names an image twice")
    for name, label in by_name.items():
        if type(label) is not int or not 0 <= label <= LAST_CLASS:
            raise UserError(f"{path}: its {LABELS_FILE} says that {name} has class {label}; classes are 0, 1, 2, …")
    if missing := [name for name in images if name not in by_name]:
        raise UserError(f"{path}: its {LABELS_FILE} has no class for {missing[0]} ({len(missing)} images without)")
    return np.array([by_name[name] for name in images], dtype=np.int64)


def pack(images: Path, folder: Path, label: int | None, network: Path | None) -> None:
    """A reference set of images. They are read one by one; the set appears whole or not at all."""
    refuse_to_replace(folder)
    with open_images(images) as archive:
        labels = archive.labels
        if label is not None:
            if labels is not None:
                raise UserError(f"{images} has a {LABELS_FILE} that says the classes; drop --class")
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
        with atomic_folder(folder) as made:
            _fill(made / "images.npy", plan, archive)
            if labels is not None:
                np.save(made / refset.LABELS, labels)
            refset.seal(made, plan)


def _fill(path: Path, plan: dict[str, Any], archive: Archive) -> None:
    shape = tuple(plan["arrays"]["images.npy"]["shape"])
    with path.open("wb") as file, progress("packing", len(archive.names), unit=" images") as bar:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for name in archive.names:
            image = archive.image(name)
            if image.shape != shape[1:]:
                raise UserError(f"{name} is {image.shape}, but the first image is {shape[1:]}; make them one size")
            file.write(image.tobytes())
            bar.update()


def unpack(opened: Refset, path: Path) -> None:
    """A zip as dataset_tool.py makes it: uncompressed PNGs, and their classes in a dataset.json."""
    samples = opened.samples
    if samples.dtype != np.uint8 or samples.ndim != 4:
        raise UserError(
            f"{opened.path} holds {opened.manifest['kind']} of {samples.dtype}, and upstream's datasets hold pixels; "
            "`ddo sample` writes what they decode to"
        )
    if path.suffix != ".zip":
        raise UserError(f"{path}: upstream tells a dataset by its name; let it end in .zip")
    refuse_to_replace(path)
    names = [f"{row // 1000:05d}/img{row:08d}.png" for row in range(len(samples))]
    with (
        atomic_write(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        progress("unpacking", len(samples), unit=" images") as bar,
    ):
        for name, image in zip(names, samples, strict=True):
            archive.writestr(name, png(image, compress_level=0))
            bar.update()
        numbers = None if opened.labels is None else opened.labels.tolist()
        archive.writestr(LABELS_FILE, labels_json(names, numbers))


def labels_json(names: Sequence[str], numbers: Sequence[int] | None) -> bytes:
    """The dataset.json of images in these classes."""
    pairs = None if numbers is None else [[name, number] for name, number in zip(names, numbers, strict=True)]
    return json.dumps({"labels": pairs}).encode()


def add_labels(folder: Path, labels: Mapping[str, int]) -> None:
    """Write the classes of images in a folder to its dataset.json, beside those of other images that are there."""
    path = folder / LABELS_FILE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or nothing that can be kept
        told = {str(name): int(label) for name, label in json.loads(path.read_bytes())["labels"]}
        labels = {**{name: label for name, label in told.items() if (folder / name).exists()}, **labels}
    names = sorted(labels)
    with atomic_write(path) as file:
        file.write(labels_json(names, [labels[name] for name in names]))


def png(image: np.ndarray, compress_level: int | None = None) -> bytes:
    """uint8 [C, H, W] with one or three channels as a PNG; the compression is Pillow's own unless given."""
    from PIL import Image

    if image.shape[0] not in (1, 3):
        raise UserError(f"an image of {image.shape[0]} channels is neither grey nor in colour, and no PNG")
    buffer = io.BytesIO()
    level = {} if compress_level is None else {"compress_level": compress_level}
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(buffer, "png", **level)
    return buffer.getvalue()
