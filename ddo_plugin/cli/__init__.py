"""The command line: one file for each command. Files with an underscore hold what several commands share.

A command reads its options, calls the room that does the work and prints the result; the work itself belongs there.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from ddo_plugin.base.errors import system_errors_in_one_line
from ddo_plugin.base.interrupts import interruptible

GROUP = "ddo_plugin.commands"  # the entry point group with which an integration adds a command
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Checkout": ("apply", "revert", "status", "run", "doctor"),
    "Network": ("inspect", "convert", "merge", "sample", "refset"),
    "Measure": ("eval", "curve"),
    "Self-play": ("ls", "cp", "validate", "plan", "selfplay", "report"),
}
OTHER = "Demo and plugins"
LONGEST_SUMMARY = 60  # characters; `ddo --help` would cut a longer summary off
COMMANDS = (*(name for names in SECTIONS.values() for name in names), "plugins")


class _Commands(click.Group):
    """A group that imports a command when it is used, and lists the commands by task."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_added())]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        command: click.Command | None = None
        if name in COMMANDS:
            command = importlib.import_module(f"ddo_plugin.cli.{name}").command
        elif name in (added := _added()):
            command = added[name].load()
        return command

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a file name can be other bytes than UTF-8
        with interruptible(), system_errors_in_one_line():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        others = [name for name in self.list_commands(ctx) if not any(name in names for names in SECTIONS.values())]
        for title, names in {**SECTIONS, OTHER: sorted(others)}.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl(
                    [(name, command.get_short_help_str(LONGEST_SUMMARY)) for name, command in commands if command]
                )


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


@click.command(cls=_Commands)
@click.version_option(package_name="ddo-plugin")
def main() -> None:
    """Finetune EDM, EDM2 and VAR networks with Direct Discriminative Optimization (DDO).

    The upstream of a network is the repository that it comes from: EDM, EDM2 or VAR. A checkout is your copy of this
    repository. Run `ddo COMMAND --help` to list the options of a command.
    """
