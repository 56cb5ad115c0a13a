"""TOML that remembers where each value was written: in which line of a file, or after --set."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Place = tuple[str | int, ...]  # keys, and numbers within arrays of tables, from the top of the file down
_TABLE = re.compile(r"^\s*\[")


@dataclass(frozen=True)
class Source:
    """The values of a file with what --set puts in their place."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[Place, int]
    typed: Mapping[Place, str]  # what was given by --set, as it was typed

    def is_typed(self, place: Place) -> bool:
        return any(place[:length] in self.typed for length in range(1, len(place) + 1))

    def where(self, place: Place) -> tuple[int, str]:
        """The line and its name for a person; of what is missing, those of the table that lacks it."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.typed:
                return 0, f"--set {self.typed[place[:length]]}"
            if place[:length] in self.lines:
                line = self.lines[place[:length]]
                return line, f"{self.path}:{line}"
        if inside := [told for typed, told in self.typed.items() if typed[: len(place)] == place]:
            return 0, f"--set {inside[0]}"  # a table that only --set has
        return 1, f"{self.path}:1"


def read(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Read a file; overrides are `a.b=VALUE`, where a value that is not TOML is text."""
    try:
        text = path.read_text(encoding="utf-8")
        values = parse(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a file") from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise UserError(_told(path, error)) from None
    typed: dict[Place, str] = {}
    for override in overrides:
        given = _parse(override)
        typed |= dict.fromkeys(_leaves(given), override)
        _merge(values, given)
    return Source(path, values, _lines(text), typed)


def parse(text: str) -> dict[str, Any]:
    """The values of a text alone."""
    return tomllib.loads(text)


def _told(path: Path, error: ValueError) -> str:
    found = re.search(r"^(.*) \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
    what, line = (found[1], found[2]) if found else (str(error), None)
    return f"{path}:{line or 'end'}: this is not TOML: {what}"


def _parse(override: str) -> dict[str, Any]:
    key, equals, value = (part.strip() for part in override.partition("="))
    plain = json.dumps(value, ensure_ascii=False)  # a string of JSON is one of TOML
    for text in (value, plain) if equals else ():
        try:
            return parse(f"{key} = {text}")
        except ValueError:
            continue
    raise UserError(f"--set {override}: this is not like table.key=value")


def _merge(values: MutableMapping[str, Any], given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _lines(text: str) -> dict[Place, int]:
    """Where each statement begins. A statement is as many lines as it takes to be TOML by itself."""
    found: dict[Place, int] = {}
    tables: dict[Place, int] = {}  # arrays of tables: how many there were
    table: Place = ()
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        pending, first = (pending + "\n" + line, first) if pending else (line, number)
        try:
            statement = tomllib.loads(pending)
        except ValueError:
            continue
        if _TABLE.match(pending):
            table = _entered(statement, tables)
            found[table] = first
        else:
            for place in _leaves(statement):
                found.update({(*table, *place[: n + 1]): first for n in range(len(place))})
        pending = ""
    return found


def _entered(header: Mapping[str, Any], tables: MutableMapping[Place, int]) -> Place:
    """The place of a table from its header alone; in an array of tables with its number there."""
    place: Place = ()
    value: Any = header
    while value:
        if isinstance(value, list):
            tables[place] = tables.get(place, -1) + 1
            place, value = (*place, tables[place]), value[0]
        else:
            name = next(iter(value))
            place, value = (*place, name), value[name]
            if place in tables and isinstance(value, dict):
                place = (*place, tables[place])
    return place


def _leaves(values: Mapping[str, Any], above: Place = ()) -> Iterator[Place]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key)
