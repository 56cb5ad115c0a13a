"""Runs the code of upstream repositories on today's torch, numpy, scipy and Python, and on a CPU.

A fix that more than one upstream may need is a file here; it is applied only where it is needed, and changes this
process, never a file. A fix for the code of a single upstream belongs to its integration, which declares it in its
`Upstream` record.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.compat import cpu, infinite_sampler, no_distutils, numpy_pickles, sqrtm, weights_only
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Fix, Upstream

if TYPE_CHECKING:
    import torch

OFF_VARIABLE = "DDO_COMPAT_OFF"  # names of fixes to leave out, separated by commas, or "all"
ALL = "all"
BUILT_IN = (infinite_sampler.FIX, weights_only.FIX, sqrtm.FIX, no_distutils.FIX, numpy_pickles.FIX, cpu.FIX)

_active: list[str] = []


def fixes() -> list[Fix]:
    """Return all known fixes: the built-in ones, then those that upstreams declare."""
    return list(dict.fromkeys([*BUILT_IN, *(fix for upstream in plugins.upstreams() for fix in upstream.fixes)]))


def fixes_of(upstream: Upstream) -> list[Fix]:
    """Return the fixes that the code of an upstream needs. Refuse a name that is no built-in fix."""
    built_in = {fix.name: fix for fix in BUILT_IN}
    for name in upstream.compat:
        if name not in built_in:
            raise UserError(f"upstream {upstream.name}: no built-in fix is named '{name}'; use {', '.join(built_in)}")
    return [*(fix for fix in BUILT_IN if fix.name in upstream.compat), *upstream.fixes]


def apply() -> list[str]:
    """Apply the fixes that are needed and not yet active. Return the names of those that this call applied."""
    off = switched_off()
    return _apply(fix for fix in fixes() if fix.name not in off)


def apply_for_imports() -> list[str]:
    """Apply the fixes without which upstream cannot be imported. Import nothing heavy.

    A wrong DDO_COMPAT_OFF is ignored here: `apply` refuses it, at a time when an error can be shown in one line.
    """
    off = _named_off()
    return _apply(fix for fix in fixes() if fix.for_imports and not off & {fix.name, ALL})


def active() -> tuple[str, ...]:
    """Return the names of the fixes that this process runs with."""
    return tuple(_active)


def upstream_device() -> torch.device:
    """Return the device that upstream computes on in this process."""
    import torch

    return torch.device("cpu" if cpu.FIX.name in _active else "cuda")


def on_cpu() -> bool:
    """Return whether upstream is to run on the CPU and the fix `cpu` is not left out."""
    return cpu.chosen() and cpu.FIX.name not in switched_off()


def switched_off() -> frozenset[str]:
    """Return the names of the fixes that the environment variable DDO_COMPAT_OFF leaves out."""
    names = _named_off()
    known = [fix.name for fix in fixes()]
    if names == {ALL}:
        return frozenset(known)
    for name in sorted(names.difference(known)):
        nearest = difflib.get_close_matches(name, known, 1, cutoff=0)[0]
        raise UserError(
            f"{OFF_VARIABLE}={os.environ[OFF_VARIABLE]}: no fix is named '{name}'; did you mean '{nearest}'?"
        )
    return names


def _named_off() -> frozenset[str]:
    return frozenset(name.strip() for name in os.environ.get(OFF_VARIABLE, "").split(",") if name.strip())


def _apply(wanted: Iterable[Fix]) -> list[str]:
    applied = []
    for fix in wanted:
        if fix.name not in _active and fix.needed():
            fix.apply()
            _active.append(fix.name)
            applied.append(fix.name)
    return applied


__all__ = [
    "BUILT_IN",
    "OFF_VARIABLE",
    "active",
    "apply",
    "apply_for_imports",
    "fixes",
    "fixes_of",
    "on_cpu",
    "switched_off",
    "upstream_device",
]
