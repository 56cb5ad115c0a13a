"""Objects by name, and dictionaries with attributes: the parts of EDM's and EDM2's configurations.

They behave like the functions of the same names in those repositories' `dnnlib`; dnnlib.py prefers theirs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

_SHORTHANDS = {"np": "numpy", "tf": "tensorflow"}


class EasyDict(dict[str, Any]):
    """A dict with items that are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no item {name!r}; there are {', '.join(map(repr, self)) or 'none'}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"no item {name!r}") from None


def get_obj_by_name(name: str) -> Any:
    """Return the object that a dotted name leads to, through modules and then attributes."""
    parts = name.split(".")
    parts[0] = _SHORTHANDS.get(parts[0], parts[0])
    broken: Exception | None = None  # a module that exists but cannot be imported
    missing: Exception | None = None
    for length in range(len(parts), 0, -1):
        module_name = ".".join(parts[:length])
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # a stranger's module may raise anything
            if not _is_absent(module_name, error):
                broken = broken or error
            continue
        try:
            return _attribute(module, parts[length:], name)
        except AttributeError as error:
            missing = missing or error  # a parent module may still hold an object of this name
    raise broken or missing or ImportError(f"no module {name!r}")


def _is_absent(module_name: str, error: Exception) -> bool:
    return isinstance(error, ModuleNotFoundError) and error.name == module_name


def call_func_by_name(*args: Any, func_name: str | Callable[..., Any], **kwargs: Any) -> Any:
    """Call a function given by dotted name (or itself)."""
    function = get_obj_by_name(func_name) if isinstance(func_name, str) else func_name
    if not callable(function):
        raise TypeError(f"{func_name} is a {type(function).__name__}, not a function")
    return function(*args, **kwargs)


def construct_class_by_name(*args: Any, class_name: str | type, **kwargs: Any) -> Any:
    """Construct an object of a class given by dotted name (or itself)."""
    return call_func_by_name(*args, func_name=class_name, **kwargs)


def _attribute(module: ModuleType, path: list[str], name: str) -> Any:
    value: Any = module
    for part in path:
        try:
            value = getattr(value, part)
        except AttributeError:
            raise AttributeError(f"{value!r} has no {part!r}, looked for {name!r}") from None
    return value
