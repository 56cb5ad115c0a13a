"""TOML files with the place of each value: its line in the file, or the option --set."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.reading import read_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Place = tuple[str | int, ...]  # keys, and indices of arrays of tables, from the outermost table to the value
LARGEST = 1 << 16  # bytes of a recipe
DEEPEST = 200  # dots of a key
_ENDS = ("]", '"""', "'''")  # one of them is in the last line of a statement of several lines
_TABLE = re.compile(r"^\s*\[")


@dataclass(frozen=True)
class Source:
    """The values of a file, after the option --set replaced some of them."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[Place, int]
    typed: Mapping[Place, str]  # place of a value from --set -> the argument as the user typed it

    def is_typed(self, place: Place) -> bool:
        """Return whether the value at this place comes from --set."""
        return any(place[:length] in self.typed for length in range(1, len(place) + 1))

    def where(self, place: Place) -> tuple[int, str]:
        """Return the line number of a value, and its place as a message names it.

        For a missing value, these are the line and place of the table that should hold it.
        """
        for length in range(len(place), 0, -1):
            if place[:length] in self.typed:
                return 0, f"--set {self.typed[place[:length]]}"
            if place[:length] in self.lines:
                line = self.lines[place[:length]]
                return line, f"{self.path}:{line}"
        if inside := [argument for typed, argument in self.typed.items() if typed[: len(place)] == place]:
            return 0, f"--set {inside[0]}"  # all values of the table come from --set
        return 1, f"{self.path}:1"


def read(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Read a file and apply overrides of the form `a.b=VALUE`. A value that is not TOML is text."""
    try:
        text = read_bytes(path, LARGEST).decode()
        values = parse(text)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # from the TOML or the UTF-8 decoder
        raise UserError(_invalid(path, error)) from None
    typed: dict[Place, str] = {}
    for override in overrides:
        parsed = _parse(override)
        typed |= dict.fromkeys(_leaves(parsed), override)
        _merge(values, parsed)
    return Source(path, values, _lines(text), typed)


def parse(text: str) -> dict[str, Any]:
    """Return the values of a text, without their places."""
    if any(part.count(".") > DEEPEST for line in text.splitlines() for part in line.split("=")):
        raise ValueError("a key has too many parts")  # for which the parser would take quadratic time
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def _invalid(path: Path, error: ValueError) -> str:
    """Return the message for a file that is not TOML."""
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: not valid TOML: the file is not text in UTF-8"
    match = re.search(r"^(.*) \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
    what, line = (match[1], match[2]) if match else (str(error), None)
    return f"{path}:{line or 'end'}: not valid TOML: {what}"


def _parse(override: str) -> dict[str, Any]:
    key, equals, value = (part.strip() for part in override.partition("="))
    plain = json.dumps(value, ensure_ascii=False)  # every JSON string is also a TOML string
    for text in (value, plain) if equals else ():
        try:
            return parse(f"{key} = {text}")
        except ValueError:
            continue
    raise UserError(f"--set {override}: not of the form KEY=VALUE, as in sweep.alpha=[1,2]")


def _merge(values: MutableMapping[str, Any], overrides: Mapping[str, Any]) -> None:
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _lines(text: str) -> dict[Place, int]:
    """Return the line on which each statement begins. A statement is the fewest lines that are valid TOML.

    Statements of more than 50 lines are not tried after each line, which would take quadratic time. What follows such a
    statement can then count as part of it.
    """
    lines: dict[Place, int] = {}
    tables: dict[Place, int] = {}  # array of tables -> index of its last table
    table: Place = ()
    pending: list[str] = []
    tried = 0
    for number, line in enumerate(text.splitlines(), 1):
        pending.append(line)
        if len(pending) > 1 and (not any(end in line for end in _ENDS) or len(pending) < tried * 1.02):
            continue
        try:
            statement = tomllib.loads("\n".join(pending))
        except ValueError:
            tried = len(pending)
            continue
        first = number - len(pending) + 1
        if _TABLE.match(pending[0]):
            table = _table_place(statement, tables)
            lines[table] = first
        else:
            for place in _leaves(statement):
                lines.update({(*table, *place[: n + 1]): first for n in range(len(place))})
        pending, tried = [], 0
    return lines


def _table_place(header: Mapping[str, Any], tables: MutableMapping[Place, int]) -> Place:
    """Return the place of the table that a header opens, and count it if it belongs to an array of tables."""
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
