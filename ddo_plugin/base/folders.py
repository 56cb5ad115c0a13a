"""Where this package keeps what is not the user's: `$DDO_CACHE`, or `ddo-plugin` in the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The cache of this package; everything in it can be made again."""
    if folder := os.environ.get("DDO_CACHE"):
        return Path(folder).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "ddo-plugin"
