"""Which class each sample of a set has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.option_types import MOST_SAMPLES

DATASET = "dataset:"  # before the path of the dataset whose counts are followed
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, spread evenly over every stretch


def balanced_labels(count: int, classes: int) -> np.ndarray:
    """[count] class numbers as equal in number as can be: 0, 1, ..., repeating."""
    return np.arange(count, dtype=np.int64) % classes


def listed(count: int, wanted: Sequence[int]) -> np.ndarray:
    """[count] class numbers of a list, repeating."""
    return np.asarray(wanted, dtype=np.int64)[np.arange(count) % len(wanted)]


def like(count: int, labels: np.ndarray) -> np.ndarray:
    """[count] class numbers, each as frequent as in a dataset, every stretch as mixed as can be."""
    by_class = np.sort(labels)[(2 * np.arange(count, dtype=np.int64) + 1) * len(labels) // (2 * count)]
    mixed = np.empty(count, dtype=np.int64)
    mixed[np.argsort(np.arange(count) * GOLDEN % 1, kind="stable")] = by_class
    return mixed


def choose(wish: str, count: int, classes: int, *, others: Sequence[str] = ()) -> np.ndarray | None:
    """Class numbers by what `--labels` says: "uniform", "dataset:PATH", or a list as "0,3,5-7".

    `others` are what the command understands besides, for the line about what it does not.
    """
    if classes == 0:
        if wish != "uniform":
            raise UserError(f"--labels={wish}: the network is unconditional and knows no classes; drop --labels")
        return None
    if wish == "uniform":
        return balanced_labels(count, classes)
    if wish.startswith(DATASET):
        chosen = _of_dataset(wish.removeprefix(DATASET), count)
    else:
        chosen = _of_list(wish, count, classes, others)
    _check_known(wish, int(chosen.max()), classes)
    return chosen


def _check_known(wish: str, highest: int, classes: int) -> None:
    if highest >= classes:
        raise UserError(f"--labels={wish} has class {highest}, but the network knows 0 to {classes - 1}")


def numbers(text: str) -> list[int]:
    """ "1,2,5-7" as 1, 2, 5, 6, 7."""
    found = _ranges(text)
    if sum(map(len, found)) > MOST_SAMPLES:
        raise ValueError(f"{text!r} holds more than {MOST_SAMPLES:,} numbers")
    return [number for one in found for number in one]


def _ranges(text: str) -> list[range]:
    found: list[range] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise ValueError(f"{text!r} is no list of numbers as 1,2,5-7")
        first, last = int(match[1]), int(match[2] or match[1])
        found.append(range(first, last + 1))
    if not any(found):
        raise ValueError(f"{text!r} holds no number: a range as 5-7 rises")
    return found


def _of_dataset(path: str, count: int) -> np.ndarray:
    from ddo_plugin.sampling.refsets.image_archive import open_images

    with open_images(Path(path)) as archive:
        if archive.labels is None:
            raise UserError(f"--labels={DATASET}{path}: it has no dataset.json with labels to count")
        return like(count, archive.labels)


def _of_list(wish: str, count: int, classes: int, others: Sequence[str]) -> np.ndarray:
    try:
        _check_known(wish, max(one[-1] for one in _ranges(wish) if one), classes)  # before a long range is counted out
        return listed(count, numbers(wish))
    except ValueError:
        names = ", ".join([*others, "uniform", f"{DATASET}PATH"])
        raise UserError(f"--labels={wish}: give {names}, or class numbers as 0,3,5-7") from None
