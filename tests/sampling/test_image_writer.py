"""Files of `ddo sample`: names as upstream's, an npz row by row, a grid."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.image_files import png
from ddo_plugin.base.rank_group import Ranks
from ddo_plugin.hooks.streams import SampleGenerators
from ddo_plugin.sampling import image_writer
from ddo_plugin.sampling.image_writer import NpzWriter, Outputs, grid, write_images


class Painter:
    """An image of the class's grey; the classes that it draws itself are those of the seeds' streams."""

    kind, shape, dtype, classes, batch = "images", (3, 4, 4), "uint8", 10, 4
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def sample(self, streams: SampleGenerators, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        labels = streams.randint(10) if labels is None else labels
        self.batches.append(len(labels))
        return labels[:, None, None, None].expand(-1, *self.shape).to(torch.uint8), labels

    def images(self, samples: Tensor) -> Tensor:
        return samples


def write(outputs: Outputs, seeds: list[int], labels: Any = None, batch: int = 4) -> Painter:
    painter: Any = Painter()
    write_images(painter, Ranks(), outputs, seeds=seeds, labels=labels, batch=batch)
    return painter


@pytest.mark.parametrize(
    ("subfolders", "names"),
    [(False, ["000003.png", "012345.png"]), (True, ["000000/000003.png", "012000/012345.png"])],
)
def test_png_names_are_upstreams(tmp_path: Path, subfolders: bool, names: list[str]) -> None:
    write(Outputs(tmp_path, subfolders), [3, 12345])
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")) == names


def test_batches_are_divided_as_upstream_divides_them(tmp_path: Path) -> None:
    """Ten seeds in batches of at most four are 4, 3 and 3, not 4, 4 and 2."""
    assert write(Outputs(npz=tmp_path / "a.npz"), list(range(10))).batches == [4, 3, 3]


def test_a_seeds_own_class_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    for batch in (1, 4):
        write(Outputs(npz=tmp_path / f"{batch}.npz"), list(range(10)), batch=batch)
    one, four = (np.load(tmp_path / f"{batch}.npz")["arr_1"] for batch in (1, 4))
    np.testing.assert_array_equal(one, four)
    expected = [int(torch.randint(10, (), generator=torch.Generator().manual_seed(seed))) for seed in range(10)]
    assert one.tolist() == expected


def test_nothing_is_left_of_an_npz_that_was_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NpzWriter, "finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(Outputs(npz=tmp_path / "a.npz"), [0, 1])
    assert list(tmp_path.iterdir()) == []


def test_a_grid_that_cannot_be_written_fails_before_anything_is_sampled(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    painter: Any = Painter()
    with pytest.raises(UserError, match="cannot be written"):
        outputs = Outputs(tmp_path / "png", npz=tmp_path / "a.npz", grid=tmp_path / "file/grid.png")
        write_images(painter, Ranks(), outputs, seeds=[0, 1], labels=None, batch=4)
    assert painter.batches == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_second_run_into_a_folder_keeps_the_classes_of_the_first(tmp_path: Path) -> None:
    """Seeds 0 to 2, then 2 to 4 with other classes; of seed 0 the image is gone."""
    write(Outputs(tmp_path), [0, 1, 2], labels=np.array([1, 2, 3]))
    (tmp_path / "000000.png").unlink()
    write(Outputs(tmp_path), [2, 3, 4], labels=np.array([4, 5, 6]))
    told = json.loads((tmp_path / "dataset.json").read_text())["labels"]
    assert told == [["000001.png", 2], ["000002.png", 4], ["000003.png", 5], ["000004.png", 6]]
    assert Outputs(tmp_path).others([2, 3, 4]) == 1
    assert Outputs(tmp_path).others([1, 2, 3, 4]) == 0


def test_an_npz_written_row_by_row_is_an_npz(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    with (tmp_path / "a.npz").open("wb") as file:
        writer = NpzWriter(file, len(rows))
        for part in np.split(rows, [2, 3]):
            writer.add(part)
        writer.finish(np.arange(7))
    read = np.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(read["arr_0"], rows)
    assert read["arr_1"].tolist() == list(range(7))
    constant = np.zeros((7, 64, 64, 3), np.uint8)
    with (tmp_path / "b.npz").open("wb") as file:
        writer = NpzWriter(file, len(constant))
        writer.add(constant)
        writer.finish(None)
    assert (tmp_path / "b.npz").stat().st_size < constant.nbytes / 50  # compressed


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (4, 2, 2), (5, 2, 3), (10, 3, 4)])
def test_a_grid_is_nearly_square_and_filled_row_by_row(count: int, rows: int, columns: int) -> None:
    images = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None].repeat(2, 2).repeat(3, 3)
    made = grid(images)
    assert made.shape == (1, rows * 2, columns * 3)
    cells = made[0, ::2, ::3].reshape(-1)
    assert cells.tolist() == [*range(1, count + 1), *[0] * (rows * columns - count)]


def test_a_batch_is_written_while_the_next_one_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = threading.Event()

    class Slow(Painter):
        def sample(self, streams: SampleGenerators, labels: Tensor | None) -> tuple[Tensor, Tensor]:
            if self.batches:
                second.set()
            return super().sample(streams, labels)

    def wait_and_write(image: np.ndarray) -> bytes:
        assert second.wait(20), "the second batch was not sampled before the first one was written"
        return png(image)

    monkeypatch.setattr(image_writer, "png", wait_and_write)
    painter: Any = Slow()
    write_images(painter, Ranks(), Outputs(tmp_path), seeds=range(8), labels=None, batch=4)
    assert len(list(tmp_path.glob("*.png"))) == 8


@pytest.mark.parametrize("count", [1, 9], ids=["the last batch", "an earlier batch"])
def test_an_error_of_writing_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    def full(image: np.ndarray) -> bytes:
        raise OSError("no space left on the device")

    monkeypatch.setattr(image_writer, "png", full)
    with pytest.raises(OSError, match="no space left"):
        write(Outputs(tmp_path), list(range(count)))
    assert list(tmp_path.iterdir()) == []
