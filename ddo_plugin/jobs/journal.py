"""The only state of a self-play run: an append-only file, one JSON line a fact, on disk before it counts."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError

FILE_NAME = "journal.jsonl"
BEGUN = "begun"


class Journal:
    """Facts in the order in which they became true. Safe to append to from several threads of one process."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_unfinished_line(path)
        self.facts = read(path)
        begun = [number for number, fact in enumerate(self.facts) if fact["fact"] == BEGUN]
        self._current = begun[-1] if begun else 0  # where the facts of the current run begin

    def begin(self, settings: str) -> None:
        """A run with these settings goes on, or takes over: what an earlier run concluded is then recorded again."""
        entry = {"fact": BEGUN, "settings": settings}
        with self._lock:
            if self.facts[self._current : self._current + 1] != [entry]:
                self._current = len(self.facts)
                self._write(entry)

    def append(self, fact: str, **data: Any) -> None:
        """Record a fact, unless the current run has recorded it already: restarted, it repeats what it concludes."""
        entry = json.loads(json.dumps({"fact": fact, **data}))
        with self._lock:
            if entry not in self.facts[self._current :]:
                self._write(entry)

    def find(self, fact: str, **data: Any) -> list[dict[str, Any]]:
        """The facts of this name that carry these values."""
        return [f for f in self.facts if f["fact"] == fact and all(f.get(k) == v for k, v in data.items())]

    def about(self, out: str) -> list[dict[str, Any]]:
        """The facts about one output."""
        return [fact for fact in self.facts if fact.get("out") == out]

    def _write(self, entry: dict[str, Any]) -> None:
        whole = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, whole)  # a part of a line, on a full disk
            raise UserError(f"{self.path}: cannot be written to ({error.strerror}); mend that, and go on") from None
        self.facts.append(entry)


def read(path: Path) -> list[dict[str, Any]]:
    """Facts of a journal, also while its run goes on: a line that is not finished yet is left out."""
    if not path.exists():
        return []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    return [_parse(path, number, line) for number, line in enumerate(lines, 1)]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        fact = json.loads(line)
        if not (isinstance(fact, dict) and "fact" in fact):
            raise ValueError
        return fact
    except ValueError:
        raise UserError(
            f"{path}: line {number} is damaged, so what the run had finished is not known; delete the line, and what "
            "it recorded is done again"
        ) from None


def _drop_unfinished_line(path: Path) -> None:
    """A kill may cut the last line short; its fact never counted."""
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
