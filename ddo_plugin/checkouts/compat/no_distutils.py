"""Python 3.12 dropped `distutils`, and EDM's dnnlib imports `strtobool` from it. Normally setuptools supplies it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from ddo_plugin.hooks.types import Fix

STAND_INS = Path(__file__).parent / "stand_ins"


def _needed() -> bool:
    return importlib.util.find_spec("distutils") is None


def _apply() -> None:
    sys.path.append(str(STAND_INS))  # a path, not sys.modules: spawned workers of a DataLoader inherit it


FIX = Fix(
    "distutils",
    breaks="upstream cannot be imported: Python has no distutils any more and setuptools is missing",
    does="puts a stand-in with distutils.util.strtobool at the end of sys.path",
    needed=_needed,
    apply=_apply,
    for_imports=True,
)
