"""Which modules of this process belong to the checkout: a fix that changes behaviour does so for them alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = ("dnnlib", "torch_utils", "training")  # what the checkouts of EDM and EDM2 have in common


def concerns(folder: Path) -> bool:
    """Whether a checkout is of the kind that the fixes are for."""
    return all((folder / package).is_dir() for package in PACKAGES)


def root() -> Path | None:
    """The folder of the checkout that this process has imported from, None before its first import."""
    file = getattr(sys.modules.get("dnnlib"), "__file__", None)
    if file is None:
        return None
    folder = Path(file).resolve().parents[1]
    return folder if concerns(folder) else None


def owns(namespace: Mapping[str, Any]) -> bool:
    """Whether a module with these globals is a file of the checkout."""
    folder, file = root(), namespace.get("__file__")
    return folder is not None and isinstance(file, str) and Path(file).resolve().is_relative_to(folder)


def modules() -> Iterator[ModuleType]:
    """The checkout's modules that are imported, and the running script, which may be a patched copy elsewhere."""
    if root() is None:
        return
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and (name == "__main__" or owns(vars(module))):
            yield module
