"""The recipes that come with the package."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks.types import NetworkCount

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SUFFIX = ".toml"
COUNTS = "networks.json"  # written by `python -m benchmarks.networks`


def shipped() -> Mapping[str, Traversable]:
    """Return all recipes, by name."""
    recipes = [file for file in files("ddo_recipes").iterdir() if file.name.endswith(SUFFIX)]
    return {file.name.removesuffix(SUFFIX): file for file in sorted(recipes, key=lambda file: file.name)}


def named(name: str) -> Traversable:
    """Return the recipe of this name."""
    known = shipped()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, 1, cutoff=0)[0]
        raise UserError(f"there is no recipe {name!r}; did you mean {nearest!r}? `ddo ls` lists all")
    return known[name]


def recipe_file(text: str) -> Path:
    """Return the recipe file at this path. Refuse the name of a recipe that comes with the package."""
    path = Path(text)
    if not path.exists() and text in shipped():
        raise UserError(f"{text} is a recipe that comes with ddo-plugin; copy it first: ddo cp {text}")
    return path


def readable(text: str) -> AbstractContextManager[Path]:
    """Return the recipe file at this path, or the recipe of this name, for commands that only read."""
    if not Path(text).exists() and text in shipped():
        return as_file(named(text))
    return nullcontext(Path(text))


def published_counts(file: str) -> NetworkCount | None:
    """Return the counts of a published network by the name of its file; None if they do not come with the package."""
    counts = json.loads((files("ddo_recipes") / COUNTS).read_text()).get(file)
    return None if counts is None else NetworkCount(**counts)
