"""torch 2.6 loads weights only, but the training states of EDM and EDM2 hold classes."""

from __future__ import annotations

import fnmatch
import functools
import io
import sys
import warnings
from collections import UserDict
from pathlib import Path
from typing import Any

from ddo_plugin.checkouts.compat import ownership
from ddo_plugin.hooks.types import Fix

STATES = "training-state-*.pt"


def _needed() -> bool:
    import pickle

    import torch

    file = io.BytesIO()
    torch.save(UserDict(), file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.4 and 2.5 announce the change
        try:
            torch.load(file)
        except pickle.UnpicklingError:
            return True
    return False


def _apply() -> None:
    import torch

    original = torch.load

    @functools.wraps(original)
    def load(f: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("weights_only") is None and _is_state(f) and ownership.owns(sys._getframe(1).f_globals):
            kwargs["weights_only"] = False
        return original(f, *args, **kwargs)

    torch.load = load


def _is_state(file: object) -> bool:
    return isinstance(file, (str, Path)) and fnmatch.fnmatch(Path(file).name, STATES)


FIX = Fix(
    "weights-only",
    breaks="resuming fails: torch.load refuses the classes in a training state",
    does=f"torch.load reads all of {STATES} if the checkout's own code calls it; other files stay weights only",
    needed=_needed,
    apply=_apply,
)
