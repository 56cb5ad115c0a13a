import os
from pathlib import Path

import pytest


@pytest.fixture
def checkout():
    """A function: the name of an upstream -> the folder of its clone, which tests leave as it is."""
    folder = Path(os.environ.get("DDO_UPSTREAMS") or Path.home() / ".cache/ddo-plugin/upstreams")

    def find(name: str) -> Path:
        if not (folder / name).is_dir():
            pytest.skip(f"no checkout of {name} in {folder}")
        return folder / name

    return find
