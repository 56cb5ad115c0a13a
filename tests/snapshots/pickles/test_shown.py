"""Values of a file as short text."""

import numpy as np
import pytest
import torch

from ddo_plugin.snapshots.pickles.shown import shown


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1, "a", b"a", [1, (2,), ()], {"a": {1, 2}, 3: None}, [], {}, np.float32(0.5), frozenset({1})],
)
def test_a_short_value_is_shown_as_python_writes_it(value):
    assert shown(value) == repr(value).replace("frozenset({1})", "{1}")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 1000, "'" + "x" * 100 + "'…"),
        (torch.zeros((6,) * 8), "<a tensor of float32, shape [6, 6, 6, 6, 6, 6, 6, 6]>"),
        (np.zeros(3), "<an array of float64, shape [3]>"),
        ([1 << 20_000], "[<a number of 20001 bits>]"),
        (object(), "<a object>"),
        ([0] * 1000, "[" + "0, " * 99 + "…]"),
    ],
)
def test_a_long_value_is_cut_off(value, text):
    assert shown(value) == text


def test_references_to_references_cost_no_more_than_their_text():
    bomb = ["x" * 1000]
    for _ in range(30):
        bomb = [bomb] * 100
    assert len(shown(bomb)) < 1000
    endless = []
    endless.append(endless)
    assert len(shown(endless)) < 1000
