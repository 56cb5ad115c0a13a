"""Class balance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.image_files import png
from ddo_plugin.sampling import labels
from ddo_plugin.sampling.refsets.image_archive import labels_json


@pytest.mark.parametrize(("count", "classes"), [(50_000, 10), (1000, 1000), (23, 10), (3, 10), (1, 1), (0, 10)])
def test_classes_are_as_equal_in_number_as_can_be(count: int, classes: int) -> None:
    drawn = labels.balanced_labels(count, classes)
    assert drawn.shape == (count,)
    assert drawn.dtype == np.int64
    frequency = np.bincount(drawn, minlength=classes)
    assert len(frequency) == classes
    assert frequency.max() - frequency.min() <= 1


def test_any_stretch_of_the_set_is_balanced_too() -> None:
    assert np.bincount(labels.balanced_labels(100, 10)[37:67]).tolist() == [3] * 10


DATASET = np.repeat([0, 1, 2, 4], [50, 30, 15, 5])


@pytest.mark.parametrize("count", [100, 200, 1000])
def test_as_many_samples_as_the_dataset_have_its_very_counts(count: int) -> None:
    drawn = labels.like(count, np.random.default_rng(0).permutation(DATASET))
    assert (np.bincount(drawn) == np.bincount(DATASET) * count // 100).all()


@pytest.mark.parametrize("count", [1, 7, 64, 99, 12345])
def test_other_numbers_of_samples_are_within_one_of_its_shares(count: int) -> None:
    frequency = np.bincount(labels.like(count, DATASET), minlength=5)
    assert np.abs(frequency - np.bincount(DATASET) * count / 100).max() <= 1
    assert frequency[3] == 0


def test_stretches_are_mixed_like_the_whole() -> None:
    """Inception scores are taken over stretches; sorted classes would lower them."""
    drawn = labels.like(50_000, np.arange(1000).repeat(50))
    for stretch in drawn.reshape(10, 5000):
        frequency = np.bincount(stretch, minlength=1000)
        assert frequency.max() <= 8
        assert (frequency > 0).all()
    sorted_instead = np.arange(1000).repeat(50)[:5000]
    assert np.bincount(sorted_instead, minlength=1000).max() == 50


def test_a_list_repeats() -> None:
    assert labels.choose("7,2-4", 6, 10).tolist() == [7, 2, 3, 4, 7, 2]


def test_a_datasets_labels_are_counted_from_its_zip_or_folder(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(4)]
    for name in names:
        (tmp_path / name).write_bytes(png(np.zeros((1, 2, 2), np.uint8)))
    (tmp_path / "dataset.json").write_bytes(labels_json(names, [0, 3, 3, 3]))
    assert np.bincount(labels.choose(f"dataset:{tmp_path}", 40, 5)).tolist() == [10, 0, 0, 30]
    with pytest.raises(UserError, match="contains class 3, but the network has classes 0 to 2"):
        labels.choose(f"dataset:{tmp_path}", 40, 3)
    (tmp_path / "dataset.json").write_bytes(labels_json(names, None))
    with pytest.raises(UserError, match=r"the dataset has no dataset\.json with labels"):
        labels.choose(f"dataset:{tmp_path}", 40, 5)


@pytest.mark.parametrize("wish", ["", "cats", "1,", "3-", "7-5", "-1", "1.5"])
def test_what_is_no_choice_of_classes_is_refused(wish: str) -> None:
    with pytest.raises(UserError, match=f"--labels={wish}: pass uniform, dataset:PATH, or class numbers"):
        labels.choose(wish, 10, 10)


def test_an_unconditional_network_has_no_labels_to_choose() -> None:
    assert labels.choose("uniform", 10, 0) is None
    with pytest.raises(UserError, match="--labels=3: the network is unconditional"):
        labels.choose("3", 10, 0)


def test_a_list_without_end_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(UserError, match="contains class 9999999999, but the network has classes 0 to 9"):
        labels.choose("3,0-9999999999", 10, 10)
