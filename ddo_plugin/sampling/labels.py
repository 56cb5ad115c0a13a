"""Which class each sample of a set has."""

from __future__ import annotations

import numpy as np


def uniform(count: int, classes: int) -> np.ndarray:
    """[count] class numbers as equal in number as can be: 0, 1, ..., repeating."""
    return np.arange(count, dtype=np.int64) % classes
