"""The command `ddo` itself."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from ddo_plugin.cli import COMMANDS, main


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


def test_every_command_is_listed_with_a_line_of_help() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    for name in COMMANDS:
        line = next(line for line in output.splitlines() if line.strip().startswith(name))
        assert len(line.split()) > 2


def test_an_unknown_command_is_refused_with_status_2() -> None:
    result = CliRunner().invoke(main, ["dmeo"])
    assert result.exit_code == 2
    assert "No such command 'dmeo'" in result.output
