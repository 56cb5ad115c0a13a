"""Files with random damage: whatever the damage, a reader succeeds or refuses the file in one line.

A seeded mutator flips bits, overwrites bytes, cuts files off and fills stretches with zeros.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ddo_plugin.base.errors import UserError
from ddo_plugin.evaluation.curve import read_curve
from ddo_plugin.evaluation.image_sets import read_images
from ddo_plugin.evaluation.real_statistics import open_standard
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.sampling.refsets.image_archive import open_images, pack
from ddo_plugin.sampling.solvers import model_statistics
from ddo_plugin.selfplay.recipe.load import load
from ddo_plugin.selfplay.recipe.shipped import named
from ddo_plugin.snapshots.pickles.file_kind import FileKind, kind_of, safetensors_header

FEW, MANY = 40, 2000  # mutations of each kind of file
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1, 1])


def encoded(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, kind)
    return buffer.getvalue()


def write_zip(path: Path, method: int, kind: str = "png") -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        names = [f"{number}.{kind}" for number in range(len(IMAGES))]
        for name, image in zip(names, IMAGES, strict=True):
            archive.writestr(name, encoded(image, kind))
        labels = [[name, label] for name, label in zip(names, LABELS.tolist(), strict=True)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def write_folder(path: Path, kind: str) -> Path:
    path.mkdir()
    for number, image in enumerate(IMAGES):
        (path / f"{number}.{kind}").write_bytes(encoded(image, kind))
    return path


def write_set(path: Path) -> Path:
    with_origin = {"reference": {"source": "net.pkl", "sha256": "aa"}, "sampler": {"steps": 3}, "seed": 0}
    return refset.write(path, IMAGES, LABELS, kind="images", **with_origin).path


def write_dpm(path: Path) -> Path:
    path.mkdir()
    l, s, b = np.random.default_rng(0).normal(size=(3, 4, 1, 2, 2))  # noqa: E741
    np.savez(path / "l.npz", l=l)
    np.savez_compressed(path / "sb.npz", s=s, b=b)
    return path


def write_recipe(path: Path) -> Path:
    path.write_bytes(named("digits").read_bytes())
    return path


def write_npz(path: Path, save: Callable[..., None]) -> Path:
    save(path, mu=np.arange(3.0), sigma=np.diag([1.0, 2.0, 3.0]), arr_0=IMAGES.transpose(0, 2, 3, 1))
    return path


def write_safetensors(path: Path) -> Path:
    save_file({"weight": torch.zeros(3)}, path, metadata={"family": "diffusion"})
    return path


def write_curve(path: Path) -> Path:
    path.mkdir()
    point = {"scale": 1.0, "fid": 2.0, "inception_score": 3.0, "file": "a.json"}
    (path / "curve.json").write_text(json.dumps({"command": ["a"], "points": [point]}))
    return path


def read_all(path: Path) -> None:
    list(read_images(path).batches(2))


def read_standard(path: Path) -> None:
    standard = open_standard(str(path))
    if standard.images is not None:
        list(standard.images.batches(2))


def read_labels(path: Path) -> None:
    with open_images(path):
        pass


def read_set(path: Path) -> None:
    refset.open_refset(path).verify()
    read_all(path)


def read_header(path: Path) -> None:
    if kind_of(path) is FileKind.SAFETENSORS:
        safetensors_header(path)


def pack_beside(path: Path) -> None:
    out = path.with_name("packed")
    try:
        pack(path, out, None, None)
    finally:
        shutil.rmtree(out, ignore_errors=True)


@dataclass(frozen=True)
class Kind:
    """A kind of file, or a folder of such files, and what reads it."""

    name: str
    write: Callable[[Path], Path]
    reads: tuple[Callable[[Path], object], ...]


KINDS = {
    "stored zip": Kind("a.zip", lambda path: write_zip(path, zipfile.ZIP_STORED), (read_all, pack_beside)),
    "deflated zip": Kind("a.zip", lambda path: write_zip(path, zipfile.ZIP_DEFLATED, "bmp"), (read_all, read_labels)),
    "png": Kind("png", lambda path: write_folder(path, "png"), (read_all,)),
    "jpeg": Kind("jpeg", lambda path: write_folder(path, "jpeg"), (read_all,)),
    "bmp": Kind("bmp", lambda path: write_folder(path, "bmp"), (read_all,)),
    "webp": Kind("webp", lambda path: write_folder(path, "webp"), (read_all,)),
    "npz": Kind("a.npz", lambda path: write_npz(path, np.savez), (read_all, read_standard)),
    "deflated npz": Kind("a.npz", lambda path: write_npz(path, np.savez_compressed), (read_all, read_standard)),
    "reference set": Kind("set", write_set, (read_set,)),
    "statistics": Kind("0.002_80.0_4", write_dpm, (model_statistics.read,)),
    "recipe": Kind("a.toml", write_recipe, (load,)),
    "safetensors": Kind("a.safetensors", write_safetensors, (read_header,)),
    "curve": Kind("curve", write_curve, (read_curve,)),
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    how = chance.choice(["bits", "bytes", "cut", "zeros"])
    at = chance.randrange(len(data))
    if how == "cut":
        return data[:at]
    if how == "zeros":
        length = chance.randint(1, 64)
        changed[at : at + length] = bytes(len(changed[at : at + length]))
        return bytes(changed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        changed[at] = chance.randrange(256) if how == "bytes" else changed[at] ^ 1 << chance.randrange(8)
    return bytes(changed)


def damage_and_read(kind: Kind, folder: Path, count: int) -> list[str]:
    """Damage a file in many ways, read it each time, and return what went wrong."""
    problems: list[str] = []
    path = kind.write(folder / kind.name)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for seed in range(count):
        file = files[seed % len(files)]
        whole = file.read_bytes()
        file.write_bytes(mutated(whole, random.Random(seed)))
        for read in kind.reads:
            try:
                read(path)
            except UserError as error:
                if "\n" in error.message and not kind.name.endswith(".toml"):
                    problems.append(f"damage {seed} of {file.name}: {error.message}")
            except Exception:
                problems.append(f"damage {seed} of {file.name}: {traceback.format_exc()[-1000:]}")
        file.write_bytes(whole)
    return problems


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    assert damage_and_read(KINDS[kind], tmp_path, FEW) == []


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_of_thousands_is_a_traceback(tmp_path: Path, kind: str) -> None:
    assert damage_and_read(KINDS[kind], tmp_path, MANY) == []
