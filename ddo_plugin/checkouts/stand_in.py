"""Modules outside a checkout that replace modules in it, for runs that do not change the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def become(module: dict[str, Any], code: str, place: str) -> None:
    """Run the file `code` in a module that replaces the one at `place`, and finds its data files there."""
    module["__file__"] = place
    if "__path__" in module:
        module["__path__"].append(str(Path(place).parent))
    exec(compile(Path(code).read_bytes(), code, "exec", dont_inherit=True), module)
