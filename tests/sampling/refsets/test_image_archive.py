"""Images as upstream's tools leave them: into a reference set and out again."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.image_files import png
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.sampling.refsets import image_archive
from ddo_plugin.sampling.refsets.image_archive import open_images, pack, unpack

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 2, 1])


def write_folder(path: Path, images: np.ndarray = IMAGES, labels: object = None) -> Path:
    for number, image in enumerate(images):
        file = path / f"{number // 3:06d}" / f"{number:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(image))
    if labels is not None:
        (path / "dataset.json").write_text(json.dumps(labels))
    return path


def told(labels: np.ndarray = LABELS) -> dict[str, list[list[object]]]:
    return {"labels": [[f"{n // 3:06d}/{n:06d}.png", int(label)] for n, label in enumerate(labels)]}


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:, :1]], ids=["colour", "grey"])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_folder_is_packed_in_the_order_of_its_names(tmp_path: Path, images: np.ndarray, labelled: bool) -> None:
    pack(write_folder(tmp_path / "png", images, told() if labelled else None), tmp_path / "set", None, None)
    packed = refset.open_refset(tmp_path / "set")
    packed.verify()
    np.testing.assert_array_equal(packed.samples, images)
    assert packed.labels is None if not labelled else (packed.labels == LABELS).all()
    assert packed.manifest["reference"] == {"source": str(tmp_path / "png"), "sha256": None}


def test_the_network_that_made_them_is_recorded_if_it_is_told(tmp_path: Path) -> None:
    network = tmp_path / "network.pkl"
    network.write_bytes(b"weights")
    pack(write_folder(tmp_path / "png"), tmp_path / "set", 1, network)
    packed = refset.open_refset(tmp_path / "set")
    assert refset.RefsetFakes(packed).description["reference_sha256"] == refset.sha256_file(network)
    assert (packed.labels == 1).all()


def test_a_set_survives_unpacking_and_packing(tmp_path: Path) -> None:
    pack(write_folder(tmp_path / "png", labels=told()), tmp_path / "set", None, None)
    unpack(refset.open_refset(tmp_path / "set"), tmp_path / "set.zip")
    pack(tmp_path / "set.zip", tmp_path / "again", None, None)
    first, again = (refset.open_refset(tmp_path / name).manifest["arrays"] for name in ("set", "again"))
    assert first == again
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert archive.namelist()[0] == "00000/img00000000.png"
        assert all(one.compress_type == zipfile.ZIP_STORED for one in archive.infolist())


def test_without_labels_the_dataset_has_none(tmp_path: Path) -> None:
    pack(write_folder(tmp_path / "png"), tmp_path / "set", None, None)
    unpack(refset.open_refset(tmp_path / "set"), tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert json.loads(archive.read("dataset.json")) == {"labels": None}


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (told(LABELS[:3]), "has no class for 000001/000003.png .2 images have none"),
        ({"classes": []}, r"cannot read dataset\.json in upstream's format"),
        ({"labels": [["000000/000000.png"]]}, r"cannot read dataset\.json in upstream's format"),
        (told(LABELS - 1), "gives 000000/000001.png the class -1; classes are the numbers 0, 1, 2"),
        ({"labels": [["000000/000000.png", 0.5]]}, "gives 000000/000000.png the class 0.5"),
        ({"labels": [["000000/000000.png", 10**30]]}, "the class 10000000"),
        ({"labels": told()["labels"] * 2}, "lists an image twice"),
    ],
)
def test_a_dataset_json_that_does_not_fit_is_refused(tmp_path: Path, labels: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        pack(write_folder(tmp_path / "png", labels=labels), tmp_path / "set", None, None)
    assert not (tmp_path / "set").exists()


def test_two_sources_of_classes_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.json already gives the classes; drop --class"):
        pack(write_folder(tmp_path / "png", labels=told()), tmp_path / "set", 1, None)


def test_images_of_different_sizes_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "png")
    (folder / "000009.png").write_bytes(png(IMAGES[0, :, :4, :4]))
    with pytest.raises(UserError, match=r"000009\.png is \(3, 4, 4\), but the first image is \(3, 8, 8\);"):
        pack(folder, tmp_path / "set", None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["png"]


def as_mode(mode: str, folder: Path) -> Path:
    """The images of `write_folder` in another of Pillow's modes."""
    for file in write_folder(folder).rglob("*.png"):
        with Image.open(file) as image:
            image.convert(mode).save(file)
    return folder


def test_a_palettes_colours_are_packed_and_not_their_numbers(tmp_path: Path) -> None:
    palette = as_mode("P", tmp_path / "png")
    with open_images(palette) as archive:
        first = np.asarray(Image.open(palette / archive.names[0]).convert("RGB"))
    pack(palette, tmp_path / "set", None, None)
    np.testing.assert_array_equal(refset.open_refset(tmp_path / "set").samples[0], first.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_what_is_neither_grey_nor_colour_of_8_bits_is_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(UserError, match=rf"000000\.png has mode {mode}: .* convert it to grayscale or RGB"):
        pack(as_mode(mode, tmp_path / "png"), tmp_path / "set", None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["png"]


def test_what_lies_in_the_place_is_left_alone(tmp_path: Path) -> None:
    """Be it the folder of the images themselves."""
    images = write_folder(tmp_path / "png", labels=told())
    pack(images, tmp_path / "set", None, None)
    before = sorted(tmp_path.rglob("*"))
    for place in (images, tmp_path / "set", tmp_path):
        with pytest.raises(UserError, match="already exists and is not overwritten; choose another place"):
            pack(images, place, None, None)
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(UserError, match="already exists and is not overwritten"):
        unpack(refset.open_refset(tmp_path / "set"), tmp_path / "mine.zip")
    assert (tmp_path / "mine.zip").read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "mine.zip"])


def test_what_appears_during_the_work_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_folder(tmp_path / "png", labels=told())
    pack(images, tmp_path / "set", None, None)
    late, last = tmp_path / "late", tmp_path / "late.zip"
    seal = refset.seal
    monkeypatch.setattr(refset, "seal", lambda *arguments: (seal(*arguments), late.write_text("mine")))
    monkeypatch.setattr(image_archive, "labels_json", lambda *_: (last.write_text("mine"), b"{}")[1])
    with pytest.raises(UserError, match="late already exists and is not overwritten"):
        pack(images, late, None, None)
    with pytest.raises(UserError, match=r"late\.zip already exists and is not overwritten"):
        unpack(refset.open_refset(tmp_path / "set"), last)
    assert late.read_text() == last.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late", "late.zip", "png", "set"]


def test_a_truncated_image_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "png")
    (folder / "000009.png").write_bytes(png(IMAGES[0])[:-40])
    with pytest.raises(UserError, match=r"cannot read 000009\.png as an image"):
        pack(folder, tmp_path / "set", None, None)


@pytest.mark.parametrize("content", [b"", b"no zip"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.zip").write_bytes(content)
    with (
        pytest.raises(UserError, match="neither a folder nor a zip of images"),
        open_images(tmp_path / "images.zip"),
    ):
        pass


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    with pytest.raises(UserError, match="no images in it"), open_images(tmp_path / "png"):
        pass


def test_latents_and_tokens_are_no_dataset_of_upstream(tmp_path: Path) -> None:
    refset.write(
        tmp_path / "set", np.zeros((2, 4, 8, 8), np.float32), None, kind="images", reference={}, sampler={}, seed=0
    )
    with pytest.raises(UserError, match="holds images of float32, but upstream's datasets hold pixels"):
        unpack(refset.open_refset(tmp_path / "set"), tmp_path / "set.zip")
    assert not (tmp_path / "set.zip").exists()
