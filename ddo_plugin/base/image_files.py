"""Image files: which files of a folder or zip are images, and how they are read and written."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.limits import advice, raised
from ddo_plugin.base.reading import parsing

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # of any other format, Pillow may start a program to read it
MOST_PIXELS = 1 << 24  # of an image: 4096 x 4096
JPEG, SCAN = b"\xff\xd8", b"\xff\xda"  # beginnings of a file and of a scan
MOST_SCANS = 100  # of a JPEG, which has about ten; each costs the time of all its pixels
MOST_FILES = 10_000_000  # in a folder
HIDDEN = (".", "__MACOSX")  # macOS adds such entries to zips; they are not images


def image_names(names: Iterable[str], source: Path) -> list[str]:
    """Return the names of the image files of a folder or zip in sorted order, without hidden files."""
    images = sorted(name for name in names if _is_image(PurePosixPath(name)))
    if not images:
        raise UserError(f"{source}: no images in it ({', '.join(SUFFIXES)})")
    return images


def files_below(folder: Path) -> Iterator[str]:
    """Return the names of the regular files in a folder and its subfolders."""
    if folder.resolve() == Path(folder.resolve().anchor):
        raise UserError(f"{folder}: is the root of the file system; pass the folder of the images")
    most = raised(MOST_FILES)
    for count, path in enumerate(folder.rglob("*")):
        if count == most:
            raise UserError(f"{folder}: more than {most:,} files, the limit for a folder; {advice()}")
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def _is_image(name: PurePosixPath) -> bool:
    return name.suffix.lower() in SUFFIXES and not any(part.startswith(HIDDEN) for part in name.parts)


def read_image(read: Callable[[str], bytes], name: str, source: Path) -> np.ndarray:
    """Return an image of a folder or zip as uint8 [C, H, W] with one or three channels."""
    pillow = _pillow(source)
    with parsing(f"{source}: cannot read {name} as an image", "create it again"):
        data = read(name)
        if data.startswith(JPEG) and data.count(SCAN) > (most := raised(MOST_SCANS)):
            raise ValueError(f"more than {most:,} scans; {advice()}")
    with (
        parsing(f"{source}: cannot read {name} as an image", "create it again"),
        _opened(pillow, data) as image,
    ):
        if math.prod(image.size) > (most := raised(MOST_PIXELS)):
            raise ValueError(f"{image.width}×{image.height} is more than {most:,} pixels; {advice()}")
        pixels = np.asarray(_grey_or_rgb(image, f"{source}: {name}"))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _opened(pillow: Any, data: bytes) -> Any:
    """Open an image with Pillow. The text of Pillow's own error holds only the address of a buffer."""
    try:
        return pillow.open(io.BytesIO(data), formats=FORMATS)
    except pillow.UnidentifiedImageError:
        raise ValueError(f"damaged, or none of {', '.join(FORMATS)}") from None


def png(image: np.ndarray, compress_level: int | None = None) -> bytes:
    """Return uint8 [C, H, W] with one or three channels as a PNG; None keeps Pillow's own compression level."""
    from PIL import Image

    if image.shape[0] not in (1, 3):
        raise UserError(f"cannot write an image of {image.shape[0]} channels as a PNG; it needs 1 or 3")
    buffer = io.BytesIO()
    level = {} if compress_level is None else {"compress_level": compress_level}
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(buffer, "png", **level)
    return buffer.getvalue()


def _grey_or_rgb(image: Image.Image, name: str) -> Image.Image:
    """Return the image with 8 bits per channel. Refuse what a conversion would change silently."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode not in ("1", "P", "CMYK", "YCbCr") or "transparency" in image.info:
        raise UserError(
            f"{name} has mode {image.mode}: transparency and more than 8 bits per channel are not supported; "
            "convert it to grayscale or RGB"
        )
    return image.convert("L" if image.mode == "1" else "RGB")


def _pillow(source: Path) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise UserError(f"{source}: reading images needs pillow: pip install pillow") from None
    Image.MAX_IMAGE_PIXELS = None  # its own limit warns first and cannot be raised by DDO_LIMITS; ours is lower
    return Image
