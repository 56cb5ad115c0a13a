"""A journal whose lines lack fields, or hold others: whoever reads it says so in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.selfplay import status
from ddo_plugin.selfplay.report import history

CANDIDATE = {"objective": "ddo", "alpha": 2.0, "beta": 0.1, "needs_fakes": True}
OTHERS = (None, 5, -1.5, "x", [], [7], {}, {"a": 1}, True)


def whole(folder: Path) -> list[dict[str, Any]]:
    """Write and return a journal with each fact that a run records."""
    journal, step = Journal(folder / FILE_NAME), {"task": "training of a", "kind": "training", "out": "p/1"}
    journal.begin("settings")
    journal.append("plan", plan="p", upstream="edm", rounds=[{"candidates": 2, "trainings": 2.0}] * 2)
    (folder / "eval.json").write_text('{"score": 3.0}')
    for number, candidate in enumerate((None, CANDIDATE)):
        journal.append("started", attempt=1, **step)
        journal.append("finished", measured={"seconds": 2.0, "bytes": 100}, **step)
        journal.append("finished", **step | {"kind": "evaluation"}, measured={"seconds": 1.0, "bytes": 10})
        network = {"plan": "p", "round": number, "network": f"p/{number}", "score": 3.0}
        for fact in ("evaluated", "compared"):
            journal.append(fact, **network, candidate=candidate, evaluation="eval.json")
    journal.append("dropped", plan="p", round=1, candidate=CANDIDATE, snapshots=1)
    journal.append("collapsed", plan="p", round=1, out="p/2", candidate=CANDIDATE, why="collapsed")
    journal.append("selected", plan="p", round=1, network="p/1")
    journal.append("stopped", plan="p", round=2, why="every candidate collapsed")
    for number, fact in enumerate(("failed", "abandoned", "damaged")):
        more = {"why": "w"} if fact == "damaged" else {"status": 1, "attempt": 1, "attempts": 1, "log": "p/3.log"}
        journal.append(fact, task="t", out=f"p/{3 + number}", **more)
    journal.append("started", task="t", kind="training", out="p/9", attempt=1)
    return journal.facts


def damaged(value: Any, put: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield the value with each of its parts left out or replaced, and `put` around it."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield put({other: kept for other, kept in value.items() if other != name})
            yield from (put(value | {name: other}) for other in OTHERS)
            yield from damaged(part, lambda new, name=name: put(value | {name: new}))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from damaged(part, lambda new, place=place: put([*value[:place], new, *value[place + 1 :]]))


def test_a_damaged_line_is_reported_in_one_line_by_all_who_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "is_held", lambda _: True)  # so that the time left is estimated
    facts, refused = whole(tmp_path), 0
    readers = (lambda: list(status.lines(tmp_path)), lambda: history.load(tmp_path))
    for read in readers:
        read()
    for number, fact in enumerate(facts):
        for other in damaged(fact, lambda new: new):
            lines = [*facts[:number], other, *facts[number + 1 :]]
            (tmp_path / FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
            for read in readers:
                try:
                    read()
                except UserError as error:
                    assert f"line {number + 1} is damaged" in error.message, other
                    refused += 1
                except Exception as error:
                    raise AssertionError(f"line {number + 1}: {other}") from error
    assert refused > 100
