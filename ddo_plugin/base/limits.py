"""The limits on what reading a file may cost. One environment variable raises all of them."""

from __future__ import annotations

import math
import os

from ddo_plugin.base.errors import UserError

VARIABLE = "DDO_LIMITS"
_HIGHEST = 1000  # so that no limit exceeds what a system call accepts


def raised(limit: int) -> int:
    """Return a limit, multiplied as the user says."""
    return int(limit * _factor())


def advice() -> str:
    """Return how to double the limits, for the message about a file that exceeds one."""
    return f"if you trust it, set {VARIABLE}={2 * _factor():g} to double the limits"


def _factor() -> float:
    text = os.environ.get(VARIABLE, "")
    try:
        value = float(text or 1)
    except ValueError:
        value = math.nan
    if not 1 <= value <= _HIGHEST:
        raise UserError(f"{VARIABLE}={text}: must be a number from 1 to {_HIGHEST}")
    return value
