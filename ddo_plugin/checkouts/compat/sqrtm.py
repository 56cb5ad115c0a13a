"""scipy 1.18 dropped the argument `disp` of `sqrtm`. EDM and EDM2 pass disp=False and unpack two values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ddo_plugin.hooks.types import Fix


def with_disp(sqrtm: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a `sqrtm` like that of scipy before 1.18: with disp=False it also returns the estimated relative error."""
    import numpy as np

    @functools.wraps(sqrtm)
    def old(A: Any, disp: bool = True, blocksize: int = 64) -> Any:
        root = sqrtm(A)
        if disp:
            return root
        return root, np.linalg.norm(root @ root - A) / np.linalg.norm(A)

    return old


def _needed() -> bool:
    try:
        from scipy.linalg import sqrtm
    except ModuleNotFoundError:
        return False
    return "disp" not in inspect.signature(sqrtm).parameters


def _apply() -> None:
    import scipy.linalg

    scipy.linalg.sqrtm = with_disp(scipy.linalg.sqrtm)


FIX = Fix(
    "sqrtm",
    breaks="the metrics scripts fail after they have computed the features: sqrtm does not accept disp any more",
    does="scipy.linalg.sqrtm accepts disp again and returns two values for disp=False",
    needed=_needed,
    apply=_apply,
)
