"""Class balance."""

from __future__ import annotations

import numpy as np
import pytest

from ddo_plugin.sampling import labels


@pytest.mark.parametrize(("count", "classes"), [(50_000, 10), (1000, 1000), (23, 10), (3, 10), (1, 1), (0, 10)])
def test_classes_are_as_equal_in_number_as_can_be(count: int, classes: int) -> None:
    drawn = labels.uniform(count, classes)
    assert drawn.shape == (count,)
    assert drawn.dtype == np.int64
    frequency = np.bincount(drawn, minlength=classes)
    assert len(frequency) == classes
    assert frequency.max() - frequency.min() <= 1


def test_any_stretch_of_the_set_is_balanced_too() -> None:
    assert np.bincount(labels.uniform(100, 10)[37:67]).tolist() == [3] * 10
