"""Images to measure, read in batches: a folder or zip of images, an .npz with `arr_0`, or a reference set."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from ddo_plugin.base.archives import DEFLATE, Zip, array_header, open_zip, read_exactly
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.base.image_files import MOST_PIXELS, files_below, image_names, read_image
from ddo_plugin.base.limits import raised
from ddo_plugin.base.reading import read_bytes
from ddo_plugin.sampling.refsets import format as refset

NPZ_KEY = "arr_0"  # the name in OpenAI's evaluator and VAR's sampler; [N, H, W, C]
NPZ_FILE = f"{NPZ_KEY}.npy"
DECODERS = 8  # threads
MOST_BATCH = 1 << 29  # bytes; a batch of larger images has fewer of them


class Images(Protocol):
    """uint8 images that all have the same shape."""

    @property
    def description(self) -> Mapping[str, Any]:
        """Return the source for the result file, with the sha256 of the file or of a reference set's array."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield all images in order, in batches [size, C, H, W]."""


def read_images(path: Path) -> Images:
    """Open images from a path that a user passes. Only names and headers are read at this point."""
    if (path / refset.MANIFEST).exists():
        return RefsetImages(refset.open_refset(path))
    if path.is_dir():
        return ImageFiles(path, files_below(path), lambda name: read_bytes(path / name))
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".npz":
        return NpzImages(path)
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path}: not images; pass a folder or zip of images, an .npz with {NPZ_KEY}, or a reference set"
        )
    archive = Zip(path)
    return ImageFiles(path, archive.names, archive.read)


class ImageFiles:
    """The image files of a folder or zip, decoded by several threads."""

    def __init__(self, path: Path, names: Iterable[str], read: Callable[[str], bytes]):
        self._path, self._names, self._read = path, image_names(names, path), read

    @property
    def description(self) -> Mapping[str, Any]:
        return {"path": str(self._path), "count": len(self), "sha256": image_set_sha256(self._path)}

    def __len__(self) -> int:
        return len(self._names)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        first = read_image(self._read, self._names[0], self._path)
        size = _bounded(size, first.nbytes)
        with ThreadPoolExecutor(DECODERS) as threads:
            for start in range(0, len(self), size):
                names = self._names[start : start + size]
                yield np.stack(list(threads.map(partial(self._decode, shape=first.shape), names)))

    def _decode(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        image = read_image(self._read, name, self._path)
        if (found := image.shape) != shape:
            del image  # the error's traceback would keep it, for each thread and file
            raise UserError(
                f"{self._path}: {name} is {found}, but the first image is {shape}; "
                "convert them to the same size and number of channels"
            )
        return image


def _bounded(size: int, nbytes: int) -> int:
    """Return how many images of so many bytes a batch has."""
    return max(1, min(size, MOST_BATCH // nbytes))


class NpzImages:
    """The array `arr_0` of an .npz, streamed from the file: 50,000 images of 256² pixels take 10 GB."""

    def __init__(self, path: Path):
        self._path = path
        with open_zip(path) as archive, archive.stream(NPZ_FILE) as file:
            self._shape = self._check_header(file)

    @property
    def description(self) -> Mapping[str, Any]:
        return {"path": str(self._path), "count": len(self), "sha256": image_set_sha256(self._path)}

    def __len__(self) -> int:
        return self._shape[0]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        with open_zip(self._path) as archive, archive.stream(NPZ_FILE) as file:
            count, *shape = self._check_header(file)
            size = _bounded(size, math.prod(shape))
            for first in range(0, count, size):
                rows = min(size, count - first)
                data = read_exactly(file, rows * math.prod(shape))
                pixels = np.frombuffer(data, np.uint8).reshape(rows, *shape)
                yield np.array(pixels.transpose(0, 3, 1, 2), order="C")

    def _check_header(self, file: IO[bytes]) -> tuple[int, ...]:
        """Return the shape [N, H, W, C] from the header of the array."""
        shape, is_fortran, dtype = array_header(file)
        if dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or is_fortran:
            raise UserError(f"{self._path}: {NPZ_KEY} is {dtype} {list(shape)}, but must be uint8 [N, H, W, C]")
        if not 0 < shape[1] * shape[2] <= raised(MOST_PIXELS) or shape[0] > DEFLATE * self._path.stat().st_size:
            raise UserError(f"{self._path}: {NPZ_KEY} claims {list(shape)}, which it cannot hold; download it again")
        return shape


def image_set_sha256(path: Path) -> str | None:
    """Return the sha256 of a file or of a reference set's samples, and None for a folder of images."""
    if (path / refset.MANIFEST).exists():
        return refset.open_refset(path).samples_sha256
    return sha256_file(path) if path.is_file() else None


class RefsetImages:
    """The samples of a reference set."""

    def __init__(self, opened: refset.Refset):
        if opened.manifest["kind"] != "images" or opened.samples.dtype != np.uint8:
            content = f"{opened.samples.dtype} {opened.manifest['kind']}"
            raise UserError(f"{opened.path}: holds {content}, not pixels; measure images that `ddo sample` wrote")
        self._samples = opened.samples
        self.description = {
            "path": str(opened.path),
            "count": len(opened),
            "sha256": opened.samples_sha256,
            "network": dict(opened.manifest["reference"]),
        }

    def __len__(self) -> int:
        return len(self._samples)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        for first in range(0, len(self), size):
            yield np.array(self._samples[first : first + size])
