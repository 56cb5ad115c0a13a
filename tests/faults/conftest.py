"""The folder that the commands work in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.world import fill


@pytest.fixture(scope="session")
def fault_world(tmp_path_factory: pytest.TempPathFactory, demo_data: Path) -> Path:
    """A folder with a file of every kind that a command reads."""
    folder = tmp_path_factory.mktemp("faults") / "world"
    fill(folder, demo_data)
    return folder
