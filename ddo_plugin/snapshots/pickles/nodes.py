"""The plain data that represent the objects of a pickle when no code of the file is run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddo_plugin.base.limits import advice, raised

DEEPEST_MODULE = 64
LONGEST_INTEGER = 1024  # bits; Python refuses to print integers of more than 4,300 digits
LONGEST_KEY = 128  # characters of a module's name in its parent
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")


class ForbiddenError(Exception):
    """The file refers to something that no network needs and that could run code."""


class BrokenError(Exception):
    """The file is damaged, or its parts contradict each other."""


class LimitError(BrokenError):
    """Reading the file would cost more than a limit allows. The message says how to raise the limit."""


@dataclass(eq=False)
class Node:
    """An object of a class that is not imported: its name, the source text stored with it, and its attributes."""

    class_name: str
    source: str | None = field(default=None, repr=False)  # never run; None for a class of torch
    state: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def init_args(self) -> Any:
        """Return the positional arguments of the constructor, as the file has them."""
        return self.state.get("_init_args")

    @property
    def init_kwargs(self) -> Any:
        """Return the keyword arguments of the constructor, as the file has them."""
        return self.state.get("_init_kwargs")

    @property
    def is_module(self) -> bool:
        """Return whether the object is a torch.nn.Module."""
        return all(isinstance(self.state.get(name), dict) for name in _MODULE_PARTS)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that the constructor has set, without those of torch.nn.Module."""
        return {name: value for name, value in self.state.items() if not name.startswith("_") and name != "training"}

    def modules(self) -> Iterator[tuple[str, Node]]:
        """Yield this module and all modules below it, each with its dotted name."""
        waiting: list[tuple[str, Any, int]] = [("", self, 0)]
        seen: set[int] = set()
        while waiting:
            name, node, depth = waiting.pop()
            if not (isinstance(node, Node) and node.is_module):
                raise BrokenError(f"{name or 'the network'} is not a module")
            own = {id(node), *(id(node.state[part]) for part in _MODULE_PARTS)}
            if own & seen or depth > DEEPEST_MODULE:
                raise BrokenError(f"the module {name} occurs twice, or is nested too deeply")
            seen |= own
            yield name, node
            children = [(key, child) for key, child in node.state["_modules"].items() if child is not None]
            for key, child in reversed(children):
                if not isinstance(key, str) or len(key) > LONGEST_KEY:
                    raise BrokenError(f"a module in {name or 'the network'} whose name is no text or is too long")
                waiting.append((f"{name}.{key}" if name else key, child, depth + 1))


@dataclass(eq=False)
class Unknown:
    """Stands for the result of a forbidden function while a file is only described, not loaded."""

    what: str


def plain(value: Any, *, limit: int = 1000) -> Any:
    """Return a copy of plain data, such as constructor arguments. Refuse other data, or more than `limit` items."""
    most = raised(limit)
    left = [most]

    def copy(item: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise LimitError(f"arguments of more than {most:,} items; {advice()}")
        if depth > 8:
            raise BrokenError("arguments nested deeper than 8")
        if isinstance(item, dict):
            return {copy(key, depth + 1): copy(entry, depth + 1) for key, entry in item.items()}
        if type(item) in (list, tuple):
            return type(item)(copy(entry, depth + 1) for entry in item)
        if isinstance(item, int) and item.bit_length() > LONGEST_INTEGER:
            raise BrokenError(f"a number of {item.bit_length()} bits")
        if item is None or isinstance(item, str | bytes | int | float | np.generic):
            return item
        raise BrokenError(f"a {type(item).__name__} where plain data was expected")

    return copy(value, 0)
