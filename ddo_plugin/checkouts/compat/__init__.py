"""What EDM, EDM2 and VAR need on today's torch, numpy, scipy and python, and to run on a CPU.

Each fix lives in a file of its own, is applied only where it is needed, and changes this process, never a file.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.compat import cpu, no_distutils, no_git, no_group, numpy_pickles, sampler, sqrtm, weights_only
from ddo_plugin.checkouts.compat.fix import Fix

if TYPE_CHECKING:
    import torch

OFF_VARIABLE = "DDO_COMPAT_OFF"  # names of fixes to leave out, separated by commas, or "all"
ALL = "all"
FIXES = (
    sampler.FIX,
    weights_only.FIX,
    sqrtm.FIX,
    no_distutils.FIX,
    numpy_pickles.FIX,
    no_git.FIX,
    no_group.FIX,
    cpu.FIX,
)

_active: list[str] = []


def apply() -> list[str]:
    """Apply the fixes that are needed here and not yet active; the names of those that this call applied."""
    off = switched_off()
    return _apply(fix for fix in FIXES if fix.name not in off)


def apply_for_imports() -> list[str]:
    """Apply what upstream needs to be importable at all, and import nothing heavy for it.

    A wrong DDO_COMPAT_OFF is left to `apply`, which runs where an error can be shown as one line.
    """
    off = _named_off()
    return _apply(fix for fix in FIXES if fix.for_imports and not off & {fix.name, ALL})


def active() -> tuple[str, ...]:
    """The names of the fixes that this process runs with."""
    return tuple(_active)


def upstream_device() -> torch.device:
    """What upstream computes on in this process."""
    import torch

    return torch.device("cpu" if cpu.FIX.name in _active else "cuda")


def switched_off() -> frozenset[str]:
    """The fixes that the environment variable DDO_COMPAT_OFF leaves out."""
    names = _named_off()
    known = [fix.name for fix in FIXES]
    if names == {ALL}:
        return frozenset(known)
    for name in sorted(names.difference(known)):
        nearest = difflib.get_close_matches(name, known, 1, cutoff=0)[0]
        raise UserError(f"{OFF_VARIABLE} names '{name}', which is no fix, so it would do nothing; try '{nearest}'")
    return names


def _named_off() -> frozenset[str]:
    return frozenset(name.strip() for name in os.environ.get(OFF_VARIABLE, "").split(",") if name.strip())


def _apply(fixes: Iterable[Fix]) -> list[str]:
    applied = []
    for fix in fixes:
        if fix.name not in _active and fix.needed():
            fix.apply()
            _active.append(fix.name)
            applied.append(fix.name)
    return applied


__all__ = ["FIXES", "OFF_VARIABLE", "Fix", "active", "apply", "apply_for_imports", "switched_off", "upstream_device"]
