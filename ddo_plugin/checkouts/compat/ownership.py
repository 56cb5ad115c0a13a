"""Tell which modules of this process belong to a checkout. Fixes change behaviour for such modules only."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Family


@functools.lru_cache(maxsize=1)
def families() -> tuple[Family, ...]:
    """Return the families of checkouts that the installed upstreams declare."""
    return tuple(dict.fromkeys(upstream.family for upstream in plugins.upstreams() if upstream.family is not None))


def root(family: Family) -> Path | None:
    """Return the folder of the checkout that this process imports from, None before its first import."""
    file = getattr(sys.modules.get(family.anchor), "__file__", None)
    return None if file is None else _root_of(family, file)


def owns(namespace: Mapping[str, Any], *only: Family) -> bool:
    """Return whether a module with these globals is a file of a checkout. `only` restricts this to some families."""
    file = namespace.get("__file__")
    folders = [folder for family in only or families() if (folder := root(family)) is not None]
    return isinstance(file, str) and any(_lies_in(file, folder) for folder in folders)


def modules() -> Iterator[ModuleType]:
    """Yield the imported modules of the checkout, and the running script, which may be a patched copy elsewhere."""
    if not any(root(family) for family in families()):
        return
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and (name == "__main__" or owns(vars(module))):
            yield module


@functools.lru_cache
def _root_of(family: Family, file: str) -> Path | None:
    path = Path(file).resolve()
    folder = path.parents[1 if path.name == "__init__.py" else 0]
    return folder if all((folder / name).exists() for name in family.beside) else None


@functools.lru_cache(maxsize=1024)
def _lies_in(file: str, folder: Path) -> bool:
    return Path(file).resolve().is_relative_to(folder)
