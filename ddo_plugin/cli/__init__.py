"""The command `ddo`: one module a subcommand, imported only when it is asked for."""

from __future__ import annotations

import importlib

import click

COMMANDS = (
    "apply",
    "convert",
    "cp",
    "curve",
    "demo",
    "doctor",
    "eval",
    "inspect",
    "ls",
    "plugins",
    "refset",
    "report",
    "revert",
    "run",
    "sample",
    "selfplay",
    "status",
    "validate",
)


class _Commands(click.Group):
    """Imports the module of a subcommand by its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ddo_plugin.cli.{name}").command
        return command


@click.command(cls=_Commands)
@click.version_option(package_name="ddo-plugin")
def main() -> None:
    """Direct Discriminative Optimization for EDM, EDM2 and VAR."""
