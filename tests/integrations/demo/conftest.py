from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = Path(__file__).with_name("tiny.py")
ROOT = TINY.parents[3]


@pytest.fixture(scope="session")
def start_tiny() -> Callable[..., subprocess.Popen[str]]:
    """Start a tiny demo as a process of its own."""

    def start(out: Path, *flags: str, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(TINY), str(out), *flags]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, **env}
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture(scope="session")
def finished(shared, start_tiny) -> tuple[Path, str]:
    """A demo that ran through undisturbed, its hooks traced: its folder and what stood on its stderr."""

    def build(folder: Path) -> None:
        process = start_tiny(folder / "demo", "--forks", DDO_TRACE_HOOKS="1")
        printed = process.communicate()[1]
        assert process.returncode == 0, printed
        (folder / "stderr").write_text(printed)

    folder = shared("finished-demo", build)
    return folder / "demo", (folder / "stderr").read_text()


@pytest.fixture(scope="session")
def data(finished: tuple[Path, str]) -> Path:
    """A folder of prepared digits."""
    return next(finished[0].glob("data-*/about.json")).parent


@pytest.fixture(scope="session")
def base(finished: tuple[Path, str]) -> Callable[[str], Path]:
    """The base network of a family."""
    return lambda family: next(finished[0].glob(f"base/{family}-*/network-*.safetensors"))
