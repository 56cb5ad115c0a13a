"""The class of each sample of a set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.option_types import integer_ranges, integers

DATASET = "dataset:"  # prefix of a dataset's path in --labels
GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are spread evenly over every stretch


def balanced_labels(count: int, classes: int) -> np.ndarray:
    """Return [count] class numbers 0, 1, 2, …, repeated, so that all classes are equally frequent up to one sample."""
    return np.arange(count, dtype=np.int64) % classes


def listed(count: int, wanted: Sequence[int]) -> np.ndarray:
    """Return [count] class numbers from a list, repeated."""
    return np.asarray(wanted, dtype=np.int64)[np.arange(count) % len(wanted)]


def like(count: int, labels: np.ndarray) -> np.ndarray:
    """Return [count] class numbers with the class frequencies of a dataset, evenly mixed over every stretch."""
    by_class = np.sort(labels)[(2 * np.arange(count, dtype=np.int64) + 1) * len(labels) // (2 * count)]
    mixed = np.empty(count, dtype=np.int64)
    mixed[np.argsort(np.arange(count) * GOLDEN % 1, kind="stable")] = by_class
    return mixed


def choose(text: str, count: int, classes: int, *, others: Sequence[str] = ()) -> np.ndarray | None:
    """Return the class numbers that `--labels` asks for: "uniform", "dataset:PATH", or a list such as "0,3,5-7".

    `others` are further values that the command accepts; the error message lists them.
    """
    if classes == 0:
        if text != "uniform":
            raise UserError(f"--labels={text}: the network is unconditional and has no classes; drop --labels")
        return None
    if text == "uniform":
        return balanced_labels(count, classes)
    if text.startswith(DATASET):
        chosen = _of_dataset(text.removeprefix(DATASET), count)
    else:
        chosen = _of_list(text, count, classes, others)
    _check_known(text, int(chosen.max()), classes)
    return chosen


def _check_known(text: str, highest: int, classes: int) -> None:
    if highest >= classes:
        raise UserError(f"--labels={text} contains class {highest}, but the network has classes 0 to {classes - 1}")


def _of_dataset(path: str, count: int) -> np.ndarray:
    from ddo_plugin.sampling.refsets.image_archive import open_images

    with open_images(Path(path)) as archive:
        if archive.labels is None:
            raise UserError(f"--labels={DATASET}{path}: the dataset has no dataset.json with labels")
        return like(count, archive.labels)


def _of_list(text: str, count: int, classes: int, others: Sequence[str]) -> np.ndarray:
    try:
        # checked before a long range is expanded
        _check_known(text, max(numbers[-1] for numbers in integer_ranges(text) if numbers), classes)
        return listed(count, integers(text))
    except ValueError:
        names = ", ".join([*others, "uniform", f"{DATASET}PATH"])
        raise UserError(f"--labels={text}: pass {names}, or class numbers such as 0,3,5-7") from None
