"""Command lines of ours: settings as options, modules as processes, torchrun in front."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def flags(settings: Mapping[str, Any]) -> list[str]:
    """A switch stands alone if it is on; what is off or None is left out, and 0, which equals False, is not."""
    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]


def module_command(module: str, arguments: Sequence[str]) -> Command:
    """`python -m MODULE ARGUMENTS`, safe from the user's folder: its statistics.py would stand in for Python's own."""
    return Command([sys.executable, "-m", module, *arguments], {"PYTHONSAFEPATH": "1"})


def torchrun_launcher(torchrun: str | None) -> list[str]:
    """What stands between `python` and a script that these options of torchrun start; None: nothing."""
    return [] if torchrun is None else ["-m", "ddo_plugin.base.torchrun", *shlex.split(torchrun)]


@dataclass(frozen=True)
class Command:
    """An ordinary command that a person could also type."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    def __str__(self) -> str:
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        line = " ".join([*assignments, shlex.join(self.argv)])
        return f"cd {shlex.quote(str(self.cwd))} && {line}" if self.cwd else line
