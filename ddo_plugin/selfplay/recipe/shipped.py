"""The recipes that come with the package."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ddo_plugin.base.errors import UserError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SUFFIX = ".toml"


def shipped() -> Mapping[str, Traversable]:
    """All of them, by name."""
    found = [file for file in files("ddo_recipes").iterdir() if file.name.endswith(SUFFIX)]
    return {file.name.removesuffix(SUFFIX): file for file in sorted(found, key=lambda one: one.name)}


def named(name: str) -> Traversable:
    """One of them."""
    known = shipped()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, 1, cutoff=0)[0]
        raise UserError(f"there is no recipe {name!r}; did you mean {nearest!r}? `ddo ls` lists them")
    return known[name]


def recipe_file(text: str) -> Path:
    """The file that a person means; the name of a recipe of ours is no file of theirs."""
    path = Path(text)
    if not path.exists() and text in shipped():
        raise UserError(f"{text} is a recipe that comes with ddo-plugin; copy it first: ddo cp {text}")
    return path
