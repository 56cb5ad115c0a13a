"""Command lines: settings as options, modules as processes, and torchrun as the launcher."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as options: `--NAME=VALUE`, or `--NAME` for True. None and False are left out, but 0 is not."""
    present = {name: value for name, value in settings.items() if value is not None and value is not False}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in present.items()]


def module_command(module: str, arguments: Sequence[str]) -> Command:
    """Return `python -m MODULE ARGUMENTS`, which does not import from the current folder.

    Otherwise a file such as statistics.py in the user's folder would replace Python's own module.
    """
    return Command([sys.executable, "-m", module, *arguments], {"PYTHONSAFEPATH": "1"})


def torchrun_launcher(torchrun: str | None) -> list[str]:
    """Return the arguments between `python` and a script that torchrun starts with these options; None: no torchrun."""
    return [] if torchrun is None else ["-m", "ddo_plugin.base.torchrun", *shlex.split(torchrun)]


@dataclass(frozen=True)
class Command:
    """A command with its environment variables and its folder; `str` returns it as a shell line."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    def __str__(self) -> str:
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        line = " ".join([*assignments, shlex.join(self.argv)])
        return f"cd {shlex.quote(str(self.cwd))} && {line}" if self.cwd else line
