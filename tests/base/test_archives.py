"""Zips, arrays and images that were made to run a program, to fill the memory or to confuse a parser."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from ddo_plugin.base.archives import open_zip
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.reading import MOST_ITEMS
from ddo_plugin.evaluation.image_sets import read_images
from ddo_plugin.evaluation.real_statistics import open_standard
from ddo_plugin.sampling.refsets.image_archive import open_images

BIG = 100 << 20  # above the limit of an entry that is read as a whole
MEMORY = 24 << 20  # more than any refusal may take


@pytest.fixture
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "png")
    return buffer.getvalue()


def zip_of(path: Path, method: int = zipfile.ZIP_DEFLATED, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("_", "."), data)
    return path


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def described(shape: str, dtype: str = "<f8", order: bool = False) -> str:
    return f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}"


def huge_png() -> bytes:
    """A file of 68 kB that decodes to 4.3 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 65535, 65535, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 16)))
        + chunk(b"IEND", b"")
    )


def lying(path: Path, real: int, claimed: int) -> Path:
    """A zip whose entry claims fewer bytes than its data decompress to."""
    zip_of(path, a_png=bytes(real))
    data = path.read_bytes().replace(struct.pack("<I", real), struct.pack("<I", claimed))
    path.write_bytes(data)
    return path


def encrypted(path: Path) -> Path:
    zip_of(path, a_png=png_bytes())
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    return path


CLASS = json.dumps({"labels": [["a.png", 10**30]]}).encode()
ZIPS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "large entry": (lambda path: zip_of(path, a_png=bytes(BIG)), "the limit for this file is 67,108,864"),
    "lying size": (lambda path: lying(path, BIG, 1000), "cannot read a.png"),
    "bzip2": (lambda path: zip_of(path, zipfile.ZIP_BZIP2, a_png=bytes(BIG)), "another method than deflate"),
    "lzma": (lambda path: zip_of(path, zipfile.ZIP_LZMA, a_png=png_bytes()), "another method than deflate"),
    "encryption": (encrypted, "it is encrypted"),
    "many pixels": (lambda path: zip_of(path, a_png=huge_png()), "is more than 16,777,216 pixels"),
    "deep labels": (lambda path: zip_of(path, a_png=png_bytes(), dataset_json=b"[" * 100_000), "read dataset.json"),
    "large labels": (lambda path: zip_of(path, a_png=png_bytes(), dataset_json=bytes(BIG)), "the limit for this file"),
    "many labels": (
        lambda path: zip_of(path, a_png=png_bytes(), dataset_json=b"[" + b"," * MOST_ITEMS + b"]"),
        "more than 4,194,304 items",
    ),
    "large class": (lambda path: zip_of(path, a_png=png_bytes(), dataset_json=CLASS), "the class 1000"),
    "folder as image": (lambda path: zip_of(path, **{"a.png/": b""}), "no images in it"),
}
ARRAYS: dict[str, tuple[dict[str, bytes], str]] = {
    "no header": ({"mu": npy("")}, "cannot read mu"),
    "no numbers": ({"mu": npy(described("()", "|S8"))}, "not numbers"),
    "objects": ({"mu": npy(described("(3,)", "|O"))}, "not numbers"),
    "deep header": ({"mu": npy("(" * 100)}, "cannot read mu"),
    "version 2": ({"mu": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(BIG)}, "version"),
    "negative": ({"mu": npy(described("(-3,)"))}, "not a shape"),
    "petabytes": ({"mu": npy(described("(10**15,)".replace("10**15", str(10**15))))}, "the limit for this file"),
    "overflow": ({"mu": npy(described(f"({10**30}, {10**30})"))}, "the limit for this file"),
    "zeros": ({"mu": npy(described(f"({BIG // 8},)"), bytes(BIG))}, "the limit for this file"),
    "empty": ({"mu": npy(described("(0,)")), "sigma": npy(described("(0, 0)"))}, r"mu \[0\] and sigma \[0, 0\]"),
    "scalar": ({"mu": npy(described("()"), bytes(8)), "sigma": npy(described("()"), bytes(8))}, r"mu \[\]"),
    "truncated": ({"mu": npy(described("(3,)"), bytes(8))}, "8 bytes in place of 24"),
    "longer": ({"mu": npy(described("(3,)"), bytes(80))}, "longer than 24 bytes"),
    "wide images": ({"arr_0": npy(described(f"(1, {10**6}, {10**6}, 3)", "|u1"))}, "which it cannot hold"),
    "many images": ({"arr_0": npy(described(f"({10**18}, 1, 1, 3)", "|u1"))}, "which it cannot hold"),
    "no pixels": ({"arr_0": npy(described("(5, 0, 4, 3)", "|u1"))}, "which it cannot hold"),
    "missing images": ({"arr_0": npy(described("(1000, 4, 4, 3)", "|u1"))}, "0 bytes in place of"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_zip_is_refused_and_takes_little_memory(tmp_path: Path, name: str, request) -> None:
    build, says = ZIPS[name]
    path = build(tmp_path / "a.zip")
    request.getfixturevalue("little_memory")
    with pytest.raises(UserError, match=says) as refused, open_images(path) as archive:
        archive.image(archive.names[0])
    assert "\n" not in refused.value.message
    if "label" not in name and "class" not in name:
        with pytest.raises(UserError, match=says):
            list(read_images(path).batches(1))


@pytest.mark.parametrize("name", ARRAYS)
def test_a_hostile_npz_is_refused_and_takes_little_memory(tmp_path: Path, name: str, request) -> None:
    arrays, says = ARRAYS[name]
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for key, data in {"sigma": npy(described("(3, 3)"), bytes(72)), **arrays}.items():
            archive.writestr(f"{key}.npy", data)
    request.getfixturevalue("little_memory")
    with pytest.raises(UserError, match=says) as refused:
        standard = open_standard(str(tmp_path / "a.npz"))
        assert standard.images is not None
        list(standard.images.batches(64))
    assert "\n" not in refused.value.message


def test_honest_arrays_of_both_orders_and_many_types_come_back(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    for number, array in enumerate([values, np.asfortranarray(values), values.astype("f4"), values.astype("i1")]):
        path = tmp_path / f"{number}.npz"
        np.savez_compressed(path, a=array)
        with open_zip(path) as archive:
            np.testing.assert_array_equal(archive.array("a"), array)
            assert archive.array("a").dtype == array.dtype


def test_statistics_of_many_features_are_refused_before_they_are_converted(tmp_path: Path) -> None:
    """A file of 20 kB holds 20 MB of zeros as numbers of one byte. Converted, they are 160 MB."""
    sigma = np.zeros((4500, 4500), "i1")
    np.savez_compressed(tmp_path / "a.npz", mu=sigma[0], sigma=sigma)
    tracemalloc.start()
    with pytest.raises(UserError, match="4500 features, more than 4,096"):
        open_standard(str(tmp_path / "a.npz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * sigma.nbytes


def test_a_large_honest_archive_may_have_large_entries(tmp_path: Path) -> None:
    array = np.frombuffer(os.urandom(BIG), np.uint8)
    np.savez(tmp_path / "a.npz", a=array)
    with open_zip(tmp_path / "a.npz") as archive:
        np.testing.assert_array_equal(archive.array("a"), array)


def test_an_image_of_another_format_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow starts the first `gs` on PATH to read an EPS, whatever the name of the file."""
    started = tmp_path / "started"
    program = tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    image = tmp_path / "images/a.png"
    image.parent.mkdir()
    Image.new("RGB", (4, 4)).save(image, "eps")
    with pytest.raises(UserError, match=r"cannot read a\.png as an image"):
        list(read_images(image.parent).batches(1))
    with pytest.raises(UserError, match=r"cannot read a\.png as an image"), open_images(image.parent) as archive:
        archive.image("a.png")
    assert not started.exists()
    EpsImagePlugin.gs_binary = None  # forget that an earlier call found none
    with contextlib.suppress(OSError), Image.open(image) as opened:
        opened.load()
    assert started.exists(), "the file is harmless, so the refusals above show nothing"


@pytest.mark.parametrize("kind", ["gif", "tiff", "ppm", "tga", "ico", "pcx", "pdf", "jpeg2000"])
def test_other_formats_are_refused_whatever_the_name(tmp_path: Path, kind: str) -> None:
    try:
        Image.new("RGB", (4, 4)).save(tmp_path / "a.png", kind)
    except OSError:
        pytest.skip("this Pillow does not write it")
    with pytest.raises(UserError, match=r"cannot read a\.png as an image \(damaged, or none of PNG, JPEG, BMP, WEBP\)"):
        list(read_images(tmp_path).batches(1))


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """An empty scan of a progressive JPEG takes few bytes, and decoding takes time for each of its pixels."""
    buffer = io.BytesIO()
    Image.new("L", (2048, 2048)).save(buffer, "jpeg", progressive=True)
    data = buffer.getvalue()
    first = data.rindex(b"\xff\xc4", 0, data.rindex(b"\xff\xda"))
    (tmp_path / "a.jpg").write_bytes(data[:-2] + data[first:-2] * 5000 + data[-2:])
    started = time.process_time()
    with pytest.raises(UserError, match="more than 100 scans"):
        list(read_images(tmp_path).batches(1))
    assert time.process_time() - started < 1


def test_what_is_no_regular_file_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes())
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").mkdir()
    (tmp_path / "d.png").symlink_to("nowhere")
    (tmp_path / "e.png").symlink_to("e.png")
    assert len(read_images(tmp_path)) == 1


def test_the_root_of_the_file_system_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to("/")
    for path in (Path("/"), tmp_path / "root", Path("/tmp/..")):
        with pytest.raises(UserError, match="is the root of the file system; pass the folder of the images"):
            read_images(path)
