"""Images to measure: a folder or zip of pictures, an .npz with `arr_0`, or a reference set; read batch by batch."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.sampling.refsets.image_archive import SUFFIXES

NPZ_KEY = "arr_0"  # as OpenAI's evaluator and VAR's sampler name it; [N, H, W, C]
DECODERS = 8


class Images(Protocol):
    """uint8 images of one shape."""

    @property
    def description(self) -> Mapping[str, Any]:
        """Where they come from, for the record; with the sha256 of a file or of a reference set's array."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All images in order, [size, C, H, W] at a time."""


def read_images(path: Path) -> Images:
    """Open what a user names as images; nothing but names and headers is read yet."""
    if (path / refset.MANIFEST).exists():
        return RefsetImages(refset.open_refset(path))
    if path.is_dir():
        files = [file for file in path.rglob("*") if _is_picture(file.relative_to(path))]
        names = sorted(file.relative_to(path).as_posix() for file in files)
        return Pictures(path, names, lambda name: (path / name).read_bytes())
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".npz":
        return NpzImages(path)
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path}: not images; give a folder or zip of pictures, an .npz with {NPZ_KEY}, or a reference set"
        )
    archive = zipfile.ZipFile(path)
    return Pictures(path, sorted(name for name in archive.namelist() if _is_picture(Path(name))), archive.read)


def _is_picture(name: Path) -> bool:
    return name.suffix.lower() in SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in name.parts)


class Pictures:
    """Picture files of a folder or zip; several are decoded at a time."""

    def __init__(self, path: Path, names: Sequence[str], read: Callable[[str], bytes]):
        if not names:
            raise UserError(f"{path}: no pictures in it ({', '.join(SUFFIXES)})")
        try:
            import PIL.Image
        except ImportError:
            raise UserError(f"{path}: reading pictures needs pillow: pip install pillow") from None
        self._path, self._names, self._read, self._open = path, names, read, PIL.Image.open

    @property
    def description(self) -> Mapping[str, Any]:
        return {"path": str(self._path), "count": len(self), "sha256": image_set_sha256(self._path)}

    def __len__(self) -> int:
        return len(self._names)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        shape = None
        with ThreadPoolExecutor(DECODERS) as threads:
            for first in range(0, len(self), size):
                names = self._names[first : first + size]
                decoded = list(threads.map(self._decode, names))
                shape = shape or decoded[0].shape
                for name, image in zip(names, decoded, strict=True):
                    if image.shape != shape:
                        raise UserError(
                            f"{self._path}: {name} is {image.shape}, but the first image {shape}; make them one size"
                        )
                yield np.stack(decoded)

    def _decode(self, name: str) -> np.ndarray:
        """[C, H, W], one channel or three."""
        try:
            with self._open(io.BytesIO(self._read(name))) as image:
                pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{self._path}: {name} cannot be read as a picture ({error})") from None
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


class NpzImages:
    """The array of an .npz, streamed: 50,000 images of 256² would be 10 GB."""

    def __init__(self, path: Path):
        self._path = path
        with self._opened() as (_, shape):
            self._shape = shape

    @property
    def description(self) -> Mapping[str, Any]:
        return {"path": str(self._path), "count": len(self), "sha256": image_set_sha256(self._path)}

    def __len__(self) -> int:
        return self._shape[0]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        nbytes = int(np.prod(self._shape[1:]))
        with self._opened() as (file, shape):
            for first in range(0, shape[0], size):
                count = min(size, shape[0] - first)
                data = _read_whole(file, count * nbytes, self._path)
                pixels = np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
                yield np.array(pixels.transpose(0, 3, 1, 2), order="C")

    def _opened(self) -> _Member:
        return _Member(self._path)


def image_set_sha256(path: Path) -> str | None:
    """The sha256 of a file, or of a reference set's samples; a folder of pictures has none."""
    if (path / refset.MANIFEST).exists():
        return refset.open_refset(path).samples_sha256
    return sha256_file(path) if path.is_file() else None


class _Member:
    """The member `arr_0` of an .npz, its header read: a context of the stream and the shape."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> tuple[IO[bytes], tuple[int, ...]]:
        try:
            self._archive = zipfile.ZipFile(self._path)
            self._file = self._archive.open(f"{NPZ_KEY}.npy")
            version = np.lib.format.read_magic(self._file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(self._file)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self._path}: no images in it, or damaged ({error}); they are expected as {NPZ_KEY}"
            ) from None
        if dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or is_fortran:
            raise UserError(f"{self._path}: {NPZ_KEY} is {dtype} {list(shape)}, not uint8 images [N, H, W, C]")
        return self._file, shape

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._archive.close()


def _read_whole(file: IO[bytes], nbytes: int, path: Path) -> bytes:
    try:
        data = file.read(nbytes)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({error}); make or download it again") from None
    if len(data) < nbytes:
        raise UserError(f"{path}: {NPZ_KEY} ends too early; make or download it again")
    return data


class RefsetImages:
    """The samples of a reference set."""

    def __init__(self, opened: refset.Refset):
        if opened.manifest["kind"] != "images" or opened.samples.dtype != np.uint8:
            held = f"{opened.samples.dtype} {opened.manifest['kind']}"
            raise UserError(f"{opened.path}: it holds {held}, which are no pixels yet; decode them first")
        self._samples = opened.samples
        made = {"sha256": opened.samples_sha256, "network": dict(opened.manifest["reference"])}
        self.description = {"path": str(opened.path), "count": len(opened), **made}

    def __len__(self) -> int:
        return len(self._samples)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        for first in range(0, len(self), size):
            yield np.array(self._samples[first : first + size])
