"""Settings as the options of a command of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flags(settings: Mapping[str, Any]) -> list[str]:
    """A switch stands alone if it is on; what is off or None is left out, and 0, which equals False, is not."""
    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]
