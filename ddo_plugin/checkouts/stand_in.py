"""Modules outside a checkout that stand in for modules in it, in a run that leaves the checkout alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def become(module: dict[str, Any], code: str, place: str) -> None:
    """Run `code` in the module that stands in for the one at `place`; data beside the original are found there."""
    module["__file__"] = place
    if "__path__" in module:
        module["__path__"].append(str(Path(place).parent))
    exec(compile(Path(code).read_bytes(), code, "exec", dont_inherit=True), module)
