from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = Path(__file__).with_name("tiny.py")
DATA_SEED = 0


@pytest.fixture(scope="session")
def start_tiny() -> Callable[..., subprocess.Popen[str]]:
    """Start a tiny demo as a process of its own."""

    def start(out: Path, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(TINY), str(out)]
        return subprocess.Popen(command, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, start_tiny) -> tuple[Path, str]:
    """A demo that ran through undisturbed, its hooks traced: its folder and what stood on its stderr."""
    out = tmp_path_factory.mktemp("finished")
    process = start_tiny(out, DDO_TRACE_HOOKS="1")
    printed = process.communicate()[1]
    assert process.returncode == 0, printed
    return out, printed


@pytest.fixture(scope="session")
def data(finished: tuple[Path, str]) -> Path:
    """A folder of prepared digits."""
    return next(finished[0].glob("data-*/about.json")).parent


@pytest.fixture(scope="session")
def base(finished: tuple[Path, str]) -> Callable[[str], Path]:
    """The base network of a family."""
    return lambda family: next(finished[0].glob(f"base/{family}-*/network-*.safetensors"))
