"""The numbers of a run that can be published: those by seeds that selected nothing, beside those that selected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddo_plugin.jobs.journal import FILE_NAME, current, read
from ddo_plugin.selfplay import evaluation_file
from ddo_plugin.selfplay.recipe.plan import BASE, CONTROL, WINNER

SHOWN_METRICS = 4  # besides the score


@dataclass(frozen=True)
class Judged:
    """A network and its two evaluations."""

    role: str
    network: str
    evaluation: dict[str, Any]
    selected_by: float  # the score that selected it, which is therefore too good

    @property
    def score(self) -> str:
        """The mean over the seeds that selected nothing, and their standard deviation."""
        return evaluation_file.shown(self.evaluation["score"], self.evaluation.get("spread"))

    @property
    def others(self) -> dict[str, float]:
        """Metrics such as recall. The first metric is the score and is left out."""
        metrics: dict[str, float] = self.evaluation.get("metrics") or {}
        return dict(list(metrics.items())[1 : 1 + SHOWN_METRICS])


def of(root: Path) -> list[Judged]:
    """Return what the run in a folder has judged: its base and its winner, and the winner of its control."""
    facts = current(read(root / FILE_NAME))
    judged = [fact for fact in facts if fact["fact"] == "judged" and (root / fact["evaluation"]).exists()]
    latest = {fact["role"]: fact for fact in judged}
    return [
        Judged(role, fact["network"], evaluation_file.read(root / fact["evaluation"]), fact["selected_by"])
        for role in (BASE, CONTROL, WINNER)
        if (fact := latest.get(role))
    ]


def table(judged: Sequence[Judged]) -> Iterator[str]:
    """Yield a table for a terminal, nothing if nothing is judged."""
    cells = rows(judged) if judged else []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def rows(judged: Sequence[Judged]) -> list[list[str]]:
    """Return the rows of a table, its head first."""
    others = list(judged[0].others)
    found = [[each.role, each.score, f"{each.selected_by:.4g}", *_values(each, others)] for each in judged]
    return [["", "fresh seeds", "selection", *others], *found]


def _values(judged: Judged, names: Sequence[str]) -> list[str]:
    return [evaluation_file.digits(judged.others[name], 3) if name in judged.others else "" for name in names]
