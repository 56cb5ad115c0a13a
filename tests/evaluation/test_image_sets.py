"""Images in every form that a user has them in."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.evaluation import image_sets
from ddo_plugin.evaluation.image_sets import read_images
from ddo_plugin.sampling.refsets import format as refset

PIL = pytest.importorskip("PIL.Image")
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 5, 6), dtype=np.uint8)
PROVENANCE = {"reference": {"source": "net.pkl", "sha256": "aa"}, "sampler": {}, "seed": 0}


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.fromarray(image.transpose(1, 2, 0).squeeze()).save(buffer, "png")
    return buffer.getvalue()


def as_folder(path: Path, images: np.ndarray = IMAGES) -> Path:
    for number, image in enumerate(images):
        file = path / f"{number // 3:03d}" / f"{number:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(image))
    return path


def as_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dataset.json", "{}")
        for number, image in reversed(list(enumerate(IMAGES))):
            archive.writestr(f"{number:06d}.png", png(image))
    return path


def as_npz(path: Path, images: np.ndarray = IMAGES, save=np.savez) -> Path:
    save(path, arr_0=images.transpose(0, 2, 3, 1))
    return path


FORMS = {
    "folder": as_folder,
    "images.zip": as_zip,
    "images.npz": as_npz,
    "compressed.npz": lambda path: as_npz(path, save=np.savez_compressed),
    "refset": lambda path: refset.write(path, IMAGES, None, kind="images", **PROVENANCE).path,
}


def everything(path: Path, size: int) -> np.ndarray:
    batches = list(read_images(path).batches(size))
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(batch.dtype == np.uint8 for batch in batches)
    return np.concatenate(batches)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_form_gives_the_same_images_in_the_same_order(form: str, size: int, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path / form)
    np.testing.assert_array_equal(everything(path, size), IMAGES)
    assert len(read_images(path)) == 7
    assert read_images(path).description["path"] == str(path)


def test_grey_pictures_keep_their_one_channel_and_palettes_become_colours(tmp_path: Path) -> None:
    np.testing.assert_array_equal(everything(as_folder(tmp_path / "grey", IMAGES[:, :1]), 4), IMAGES[:, :1])
    (tmp_path / "palette").mkdir()
    PIL.new("P", (4, 4), 3).save(tmp_path / "palette/0.png")
    assert everything(tmp_path / "palette", 1).shape == (1, 3, 4, 4)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_transparency_and_16_bits_are_refused_because_a_conversion_would_change_the_metric(
    mode: str, tmp_path: Path
) -> None:
    PIL.new("L", (4, 4)).convert(mode).save(tmp_path / "0.png")
    with pytest.raises(UserError, match=rf"0\.png has mode {mode}: .* convert it to grayscale or RGB"):
        everything(tmp_path, 1)


def test_hidden_files_of_archives_are_not_images(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._000000.png", b"")
        archive.writestr(".hidden/1.png", b"")
    assert len(read_images(path)) == 7


def test_a_reference_set_tells_the_network_that_made_it(tmp_path: Path) -> None:
    path = FORMS["refset"](tmp_path / "set")
    assert read_images(path).description["sha256"] == sha256_file(path / "images.npy")
    assert read_images(path).description["network"] == {"source": "net.pkl", "sha256": "aa"}


def test_a_large_npz_is_not_read_whole(tmp_path: Path) -> None:
    """Truncated behind the first batch, its first batch is still there."""
    path = as_npz(tmp_path / "images.npz", np.repeat(IMAGES, 2000, 0))
    whole = path.read_bytes()
    archive = zipfile.ZipFile(path)
    offset = archive.getinfo("arr_0.npy").header_offset + 1_000_000
    path.write_bytes(whole[:offset] + bytes(1000) + whole[offset + 1000 :])
    np.testing.assert_array_equal(next(read_images(path).batches(5)), np.repeat(IMAGES[:1], 5, 0))
    with pytest.raises(UserError, match="CRC"):
        everything(path, 1000)


def refusals(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    (folder / "empty").mkdir()
    mixed = as_folder(folder / "mixed")
    (mixed / "zz.png").write_bytes(png(IMAGES[0][:, :4]))
    broken = as_folder(folder / "broken")
    (broken / "zz.png").write_bytes(b"no png")
    (folder / "text.txt").write_text("hello")
    np.savez(folder / "floats.npz", arr_0=np.zeros((3, 4, 4, 3)))
    np.savez(folder / "other.npz", images=IMAGES)
    np.savez(folder / "objects.npz", arr_0=np.array([{}], dtype=object))
    (folder / "no.npz").write_bytes(b"PK")
    tokens = np.zeros((3, 4), np.int64)
    latents = np.zeros((3, 4, 2, 2), np.float32)
    return {
        "no such file": folder / "absent",
        "no images in it": folder / "empty",
        r"zz.png is \(3, 4, 6\), but the first image is \(3, 5, 6\)": mixed,
        "cannot read zz.png as an image": broken,
        "text.txt: not images; pass": folder / "text.txt",
        r"arr_0 is float64 \[3, 4, 4, 3\], but must be uint8": folder / "floats.npz",
        r"other.npz: cannot read arr_0.npy \(there is no such entry\)": folder / "other.npz",
        r"cannot read arr_0.npy \(the array holds object, not numbers\)": folder / "objects.npz",
        "no.npz: cannot be read": folder / "no.npz",
        "int64 tokens": refset.write(folder / "tokens", tokens, None, kind="tokens", **PROVENANCE).path,
        "float32 images, not pixels": refset.write(folder / "latents", latents, None, kind="images", **PROVENANCE).path,
    }


def test_what_cannot_be_read_as_images_is_refused_in_one_line(tmp_path: Path) -> None:
    for words, path in refusals(tmp_path / "all").items():
        with pytest.raises(UserError, match=words) as refused:
            everything(path, 2)
        assert str(path) in refused.value.message
        assert "\n" not in refused.value.message


@pytest.mark.parametrize("form", ["images.zip", "compressed.npz"])
def test_a_batch_of_large_images_has_fewer_of_them(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 images of 4096² pixels without content are a file of 3 MB, and 3 GB in memory."""
    monkeypatch.setattr(image_sets, "MOST_BATCH", 2 * IMAGES[0].nbytes)
    batches = list(read_images(FORMS[form](tmp_path / form)).batches(64))
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), IMAGES)


def test_images_of_another_size_are_not_kept_until_the_batch_is_whole(tmp_path: Path) -> None:
    blank = io.BytesIO()
    PIL.new("L", (4096, 4096)).save(blank, "png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("000.png", png(IMAGES[0]))
        for number in range(1, 41):
            archive.writestr(f"{number:03d}.png", blank.getvalue())
    tracemalloc.start()
    with pytest.raises(UserError, match="but the first image is"):
        list(read_images(tmp_path / "a.zip").batches(64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * (image_sets.DECODERS + 1) * 2**24  # an image is copied once
