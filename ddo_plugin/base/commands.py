"""Command lines of ours: settings as options, modules as processes, torchrun in front."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ddo_plugin.hooks.types import Command


def flags(settings: Mapping[str, Any]) -> list[str]:
    """A switch stands alone if it is on; what is off or None is left out, and 0, which equals False, is not."""
    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]


def module_command(module: str, arguments: Sequence[str]) -> Command:
    """`python -m MODULE ARGUMENTS`, safe from the user's folder: its statistics.py would stand in for Python's own."""
    return Command([sys.executable, "-m", module, *arguments], {"PYTHONSAFEPATH": "1"})


def launcher(torchrun: str | None) -> list[str]:
    """What stands between `python` and a script that these options of torchrun start; None: nothing."""
    return [] if torchrun is None else ["-m", "ddo_plugin.base.torchrun", *shlex.split(torchrun)]
