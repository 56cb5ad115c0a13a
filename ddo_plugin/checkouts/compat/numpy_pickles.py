"""numpy 2 moved its modules, and numpy before 1.26 cannot read a pickle that names the new ones.

numpy 2 still knows the old names of the two functions that pickles refer to. While upstream writes a snapshot, these
functions have their old names.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ddo_plugin.checkouts.compat import ownership
from ddo_plugin.hooks.types import Fix

NEW, OLD = "numpy._core.", "numpy.core."
PROTOCOL = 4  # with 5, the default of python 3.14, arrays refer to a function that numpy 2 knows by its new name only


@contextlib.contextmanager
def old_names() -> Iterator[None]:
    """Let numpy 1 and numpy 2 read the arrays and scalars that this block pickles with protocol 4."""
    functions = [function for function in _constructors() if function.__module__.startswith(NEW)]
    names = [function.__module__ for function in functions]
    for function in functions:
        function.__module__ = OLD + function.__module__.removeprefix(NEW)
    try:
        yield
    finally:
        for function, name in zip(functions, names, strict=True):
            function.__module__ = name


def _constructors() -> tuple[Callable[..., Any], ...]:
    """Return the functions with which a pickle rebuilds an array and a scalar."""
    import numpy as np

    reduced: Any = (np.zeros(0).__reduce__(), np.float64(0).__reduce__())
    return tuple(constructor for constructor, *_ in reduced)


def _needed() -> bool:
    return any(function.__module__.startswith(NEW) for function in _constructors())


def _apply() -> None:
    original = pickle.dump

    @functools.wraps(original)
    def dump(obj: Any, file: Any, protocol: int | None = None, **kwargs: Any) -> None:
        if not ownership.owns(sys._getframe(1).f_globals):
            return original(obj, file, protocol, **kwargs)
        with old_names():
            return original(obj, file, PROTOCOL if protocol is None else protocol, **kwargs)

    pickle.dump = dump


FIX = Fix(
    "numpy-pickles",
    breaks="numpy before 1.26 cannot read the snapshots that are written here",
    does="snapshots that the checkout's code writes use module names that numpy 1 and 2 both know",
    needed=_needed,
    apply=_apply,
)
