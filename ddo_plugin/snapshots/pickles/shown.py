"""Values of a file as short text, at a cost that does not depend on their size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from ddo_plugin.snapshots.pickles.nodes import LONGEST_INTEGER, Unknown

_MOST_ITEMS, _DEEPEST, _LONGEST_TEXT = 100, 8, 100
_BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), frozenset: ("{", "}")}


def shown(value: Any) -> str:
    """Return a value as Python writes it, cut off where it is long. Two references to one value cost no more than one.

    `repr` is no alternative: a list in a list in a list, each a hundred times, is a file of 300 bytes.
    """
    left = itertools.count(_MOST_ITEMS, -1)

    def text(value: Any, depth: int) -> str:
        if next(left) <= 0 or depth > _DEEPEST:
            return "…"
        if isinstance(value, dict):
            pairs = (f"{text(key, depth + 1)}: {text(item, depth + 1)}" for key, item in value.items())
            return f"{{{_joined(pairs, len(value))}}}"
        if type(value) in _BRACKETS:
            opening, closing = _BRACKETS[type(value)]
            comma = "," if type(value) is tuple and len(value) == 1 else ""
            return opening + _joined((text(item, depth + 1) for item in value), len(value)) + comma + closing
        return _atom(value)

    return text(value, 0)


def _joined(items: Iterable[str], count: int) -> str:
    parts = list(itertools.takewhile(lambda item: item != "…", items))
    return ", ".join([*parts, "…"] if len(parts) < count else parts)


def _atom(value: Any) -> str:
    if isinstance(value, str | bytes | bytearray):
        return repr(value) if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]!r}…"
    if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
        return f"<a number of {value.bit_length()} bits>"
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim:
        kind = "a tensor" if isinstance(value, torch.Tensor) else "an array"
        return f"<{kind} of {str(value.dtype).removeprefix('torch.')}, shape {list(value.shape)}>"
    if value is None or isinstance(value, int | float | torch.Tensor | np.ndarray | np.generic):
        return repr(value)
    if isinstance(value, Unknown):
        return f"<result of {value.what[:_LONGEST_TEXT]}>"
    return f"<a {type(value).__name__}>"
