"""Checkouts of the upstreams, where this machine has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkout() -> Callable[[str], Path]:
    """The folder of an upstream's checkout, by name; skips where there is none."""
    folder = Path(os.environ.get("DDO_UPSTREAMS") or Path.home() / ".cache" / "ddo-plugin" / "upstreams")

    def find(name: str) -> Path:
        if not (folder / name).is_dir():
            pytest.skip(f"no checkout of {name} in {folder}")
        return folder / name

    return find
