"""What a journal says happened, in the shape that tables and figures want."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddo_plugin.finetuning import statistics
from ddo_plugin.jobs.journal import FILE_NAME, read


@dataclass(frozen=True)
class Point:
    """One judged network."""

    round: int
    network: Path
    evaluation: dict[str, Any]
    grid: Path
    candidate: dict[str, Any] | None = None  # what made it; None for a base

    @property
    def score(self) -> float:
        return float(self.evaluation["score"])

    @property
    def rank(self) -> float:
        """The score where it is a number, else the worst."""
        return math.inf if math.isnan(self.score) else self.score

    @property
    def spread(self) -> float:
        return float(self.evaluation.get("spread") or 0.0)

    def images(self) -> np.ndarray | None:
        """A few samples, uint8 [N, C, H, W], if the evaluation kept some."""
        return np.load(self.grid) if self.grid.exists() else None

    def steps(self) -> list[dict[str, float]]:
        """The statistics of the training that made this network; none for a base."""
        file = self.network.parent / statistics.FILE_NAME
        return statistics.read(file) if file.exists() else []


@dataclass
class History:
    """One self-play plan: the selected network of every round, the base first."""

    name: str
    points: list[Point] = field(default_factory=list)
    judged: list[Point] = field(default_factory=list)  # every network that was judged, in any order
    compared: list[Point] = field(default_factory=list)  # what a search looked at in passing, on a scale of its own
    dropped: set[tuple[int, float, float]] = field(default_factory=set)  # round, α, β of whom it stopped early
    ended: str = ""  # why it ended early, if it did

    @property
    def base(self) -> Point:
        return self.points[0]

    @property
    def best(self) -> Point:
        return min(self.points, key=lambda point: point.rank)


def load(root: Path) -> dict[str, History]:
    """The histories of all plans in a run's folder, by plan name; also while it runs."""
    histories: dict[str, History] = {}
    collapses: dict[tuple[str, int], str] = {}
    facts = [fact for fact in read(root / FILE_NAME) if _is_there(root, fact)]
    evaluated = {(f["plan"], f["network"]): f for f in facts if f["fact"] == "evaluated"}
    for fact in facts:
        if fact["fact"] == "evaluated" and fact["round"] == 0:
            base = _point(root, fact)
            histories[fact["plan"]] = History(fact["plan"], [base], [base])
        elif fact.get("plan") not in histories:
            continue
        elif fact["fact"] == "evaluated":
            histories[fact["plan"]].judged.append(_point(root, fact))
        elif fact["fact"] == "compared":
            histories[fact["plan"]].compared.append(_point(root, fact))
        elif fact["fact"] == "dropped":
            stopped = fact["candidate"]
            histories[fact["plan"]].dropped.add((fact["round"], stopped["alpha"], stopped["beta"]))
        elif fact["fact"] == "selected":
            histories[fact["plan"]].ended = ""
            points = histories[fact["plan"]].points
            del points[fact["round"] :]  # of an earlier run with other settings
            if judgement := evaluated.get((fact["plan"], fact["network"])):
                points.append(_point(root, judgement))
        elif fact["fact"] == "collapsed":
            collapses[fact["plan"], fact["round"]] = fact["why"]
        elif fact["fact"] == "stopped":
            histories[fact["plan"]].ended = collapses.get((fact["plan"], fact["round"]), fact["why"])
    return histories


def _is_there(root: Path, fact: dict[str, Any]) -> bool:
    """Whether what a judgement was written to is still there: a training may have been deleted, to be done again."""
    return "evaluation" not in fact or (root / fact["evaluation"]).exists()


def _point(root: Path, fact: dict[str, Any]) -> Point:
    file = root / fact["evaluation"]
    evaluation, grid = json.loads(file.read_text()), file.with_suffix(".grid.npy")
    return Point(fact["round"], root / fact["network"], evaluation, grid, fact["candidate"])
