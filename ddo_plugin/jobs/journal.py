"""The journal, the only state of a run: an append-only file of facts, one JSON line each."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import append
from ddo_plugin.base.reading import parsing, read_bytes

FILE_NAME = "journal.jsonl"
BEGUN = "begun"
REMEDY = "delete the line to repeat that step"
Whole = TypeVar("Whole")

# What the fields hold, in whichever fact they stand. A journal can be damaged, or come from a stranger.
_TEXT = "fact settings out task kind log why plan upstream network evaluation sha256 objective role"
_COUNT = "round attempt attempts status snapshots part candidates judgements weights merged"
_NUMBER = "score selected_by w alpha trainings seconds bytes"
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(_TEXT.split(), str),
    **dict.fromkeys(_COUNT.split(), int),
    **dict.fromkeys(_NUMBER.split(), (int, float)),
    "beta": (int, float, str),
    "rounds": list,
    "measured": dict,
    "candidate": (dict, NoneType),
    "finalists": (int, NoneType),
}


class Fact(dict[str, Any]):
    """A fact, or a part of it, that was read from a journal. What it lacks is an error of the journal."""

    def __init__(self, values: dict[str, Any], place: str):
        super().__init__(values)
        self.place = place
        wrong = [
            name
            for name, value in values.items()
            if not isinstance(value, _TYPES.get(name, object)) or (isinstance(value, int) and abs(value) > sys.maxsize)
        ]
        if wrong or not all(isinstance(part, dict) for part in values.get("rounds", ())):
            raise ValueError

    def __missing__(self, name: str) -> Any:
        raise _damaged(self.place)

    def fill(self, kind: Callable[..., Whole]) -> Whole:
        """Return an object with these values as its fields."""
        with parsing(f"{self.place} is damaged", REMEDY):
            return kind(**self)


class Journal:
    """The facts of a run, in the order in which they became true. Threads of one process may append to it."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_unfinished_line(path)
        self.facts: list[dict[str, Any]] = [*read(path)]
        begun = [number for number, fact in enumerate(self.facts) if fact["fact"] == BEGUN]
        self._current = begun[-1] if begun else 0  # index of the first fact of the current run

    def begin(self, settings: str) -> None:
        """Resume the last run if it had these settings; otherwise begin a new run, which records its facts again."""
        entry = {"fact": BEGUN, "settings": settings}
        with self._lock:
            if self.facts[self._current : self._current + 1] != [entry]:
                self._current = len(self.facts)
                self._write(entry)

    def append(self, fact: str, **data: Any) -> None:
        """Record a fact, unless the current run has recorded it already: a resumed run reaches the same facts again."""
        entry = json.loads(json.dumps({"fact": fact, **data}))
        with self._lock:
            if entry not in self.facts[self._current :]:
                self._write(entry)

    def find(self, fact: str, **data: Any) -> list[dict[str, Any]]:
        """Return the facts of this name that have these values."""
        return [f for f in self.facts if f["fact"] == fact and all(f.get(k) == v for k, v in data.items())]

    def about(self, out: str) -> list[dict[str, Any]]:
        """Return the facts about one output."""
        return [fact for fact in self.facts if fact.get("out") == out]

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            append(self.path, json.dumps(entry) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path} ({error.strerror}); solve this and run the same command again to resume"
            ) from None
        self.facts.append(entry)


def read(path: Path) -> list[Fact]:
    """Return the facts of a journal. Its run may still be writing: a line without an end is left out."""
    if not path.exists():
        return []
    *lines, _unfinished = read_bytes(path).split(b"\n")
    return [_parse(path, number, line) for number, line in enumerate(lines, 1)]


def current(facts: Sequence[Fact]) -> Sequence[Fact]:
    """Return the facts of the current run, without those of earlier runs with other settings."""
    begun = [place for place, fact in enumerate(facts) if fact["fact"] == BEGUN]
    return facts[begun[-1] if begun else 0 :]


def _parse(path: Path, number: int, line: bytes) -> Fact:
    place = f"{path}: line {number}"
    try:
        fact = json.loads(line, object_hook=lambda values: Fact(values, place))
        if not (isinstance(fact, Fact) and "fact" in fact):
            raise ValueError
        return fact
    except (ValueError, RecursionError):
        raise _damaged(place) from None


def _damaged(place: str) -> UserError:
    return UserError(f"{place} is damaged, so it is unknown which step had finished; {REMEDY}")


def _drop_unfinished_line(path: Path) -> None:
    """Remove a last line that a kill cut short. Its fact has not counted yet."""
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
