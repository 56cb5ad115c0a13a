"""The command `ddo` itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
from click.testing import CliRunner

from ddo_plugin.cli import LONGEST_SUMMARY, OTHER, SECTIONS, main


def modules_after(statements: str) -> set[str]:
    code = f"import sys\ntry:\n    {statements}\nexcept SystemExit: pass\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_help_imports_no_torch() -> None:
    loaded = modules_after("from ddo_plugin.cli import main; main(['--help'])")
    assert "ddo_integrations.demo.command" in loaded
    assert not {"torch", "numpy", "sklearn", "matplotlib"} & loaded


def test_importing_the_package_imports_no_torch() -> None:
    assert "torch" not in modules_after(
        "import ddo_plugin, ddo_plugin.inject, ddo_plugin.hooks.plugins, ddo_plugin.hooks.types"
    )


def commands(group: click.Group, path: str = "ddo") -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name, those of groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def test_help_lists_every_command_in_a_section_with_its_whole_summary() -> None:
    lines = [line.strip() for line in CliRunner().invoke(main, ["--help"]).output.splitlines()]
    assert [line for line in [*SECTIONS, OTHER] if f"{line}:" not in lines] == []
    for path, command in commands(main):
        if path.count(" ") == 1:
            summary = command.get_short_help_str(1000)
            (line,) = [line for line in lines if line.startswith(f"{path.removeprefix('ddo ')} ")]
            assert line.endswith(f"  {summary}"), f"{path}: the summary is cut off"


def test_every_summary_fits_a_line() -> None:
    for path, command in commands(main):
        summary = command.get_short_help_str(1000)
        assert 10 <= len(summary) <= LONGEST_SUMMARY, f"{path}: {summary!r}"
        assert "…" not in summary, path
        assert "..." not in summary, path


def test_an_unknown_command_is_refused_with_status_2() -> None:
    result = CliRunner().invoke(main, ["dmeo"])
    assert result.exit_code == 2
    assert "No such command 'dmeo'" in result.output
