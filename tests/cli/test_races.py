"""Two commands that create the same output at the same moment: one succeeds, the other says that it did not."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from ddo_plugin.base import files
from ddo_plugin.cli import main
from tests.cli.test_wrong_input import fill
from tests.security.mutations import originals

COMMANDS = {
    "refset pack": ["refset", "pack", "images", "{out}"],
    "refset unpack": ["refset", "unpack", "set", "{out}.zip"],
    "convert": ["convert", "checkpoint.pth", "{out}.pth"],
    "cp": ["cp", "digits", "{out}"],
}
FEW, MANY = 3, 100  # races of each command
LONGEST_WAIT_S = 60


def race(arguments: Sequence[str], out: Path) -> list[str]:
    """Run a command twice at once, both up to the creation of `out` and then on, and return what went wrong."""
    given = [argument.format(out=out) for argument in arguments]
    beside = _names(out.parent)
    both = [out.parent / f"ready-{out.name}-{number}" for number in range(2)]
    children = [_start(given, own, both) for own in both]
    statuses = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    for ready in both:
        ready.unlink(missing_ok=True)
    problems = [] if statuses == [0, 2] else [f"{given}: statuses {statuses}"]
    if (left := _names(out.parent) - beside) != {given[-1].rpartition("/")[2]}:
        problems.append(f"{given}: left {left}")
    return problems


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch, demo_data: Path) -> None:
    """Enter a folder with an input for each command."""
    fill(folder, monkeypatch, demo_data)
    Path("checkpoint.pth").write_bytes(originals()["checkpoint"])


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _start(arguments: Sequence[str], own: Path, both: Sequence[Path]) -> int:
    if child := os.fork():
        return child
    status = 1
    try:
        create = files._create

        def create_together(temporary: Path, path: Path) -> None:
            own.touch()
            deadline = time.monotonic() + LONGEST_WAIT_S
            while not all(ready.exists() for ready in both) and time.monotonic() < deadline:
                pass
            create(temporary, path)

        files._create = create_together
        status = CliRunner().invoke(main, list(arguments)).exit_code
    finally:
        os._exit(status)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_data: Path) -> Path:
    prepare(tmp_path, monkeypatch, demo_data)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.thorough)])
def test_one_of_two_commands_creates_an_output(command: str, count: int, world: Path) -> None:
    assert [told for number in range(count) for told in race(COMMANDS[command], world / f"out-{number}")] == []


def test_a_command_that_replaces_is_found(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above could not fail."""
    monkeypatch.setattr(files, "_create", lambda temporary, path: temporary.replace(path))
    assert "statuses [0, 0]" in race(COMMANDS["cp"], world / "out")[0]
