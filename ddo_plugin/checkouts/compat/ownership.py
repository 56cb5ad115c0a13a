"""Which modules of this process belong to the checkout: a fix that changes behaviour does so for them alone."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Family:
    """Checkouts that the same fixes are for: a module that they import early, and what lies beside it."""

    anchor: str
    beside: tuple[str, ...]


NVLABS = Family("dnnlib", ("dnnlib", "torch_utils", "training"))  # EDM and EDM2
VAR = Family("dist", ("dist.py", "trainer.py", "models/var.py", "utils/arg_util.py"))
FAMILIES = (NVLABS, VAR)


def family(folder: Path) -> Family | None:
    """The family that a checkout is of, None if the fixes are not for it."""
    for one in FAMILIES:
        if all((folder / name).exists() for name in one.beside):
            return one
    return None


def root(of: Family) -> Path | None:
    """The folder of the checkout that this process has imported from, None before its first import."""
    file = getattr(sys.modules.get(of.anchor), "__file__", None)
    return None if file is None else _root_of(of, file)


def owns(namespace: Mapping[str, Any], *families: Family) -> bool:
    """Whether a module with these globals is a file of a checkout, of these families if any are named."""
    file = namespace.get("__file__")
    folders = [folder for one in families or FAMILIES if (folder := root(one)) is not None]
    return isinstance(file, str) and any(_lies_in(file, folder) for folder in folders)


def modules() -> Iterator[ModuleType]:
    """The checkout's modules that are imported, and the running script, which may be a patched copy elsewhere."""
    if not any(root(one) for one in FAMILIES):
        return
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and (name == "__main__" or owns(vars(module))):
            yield module


@functools.lru_cache
def _root_of(of: Family, file: str) -> Path | None:
    path = Path(file).resolve()
    folder = path.parents[1 if path.name == "__init__.py" else 0]
    return folder if family(folder) is of else None


@functools.lru_cache(maxsize=1024)
def _lies_in(file: str, folder: Path) -> bool:
    return Path(file).resolve().is_relative_to(folder)
