"""The history of a run: the facts of its journal, arranged for tables and figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddo_plugin.base.reading import parsing
from ddo_plugin.finetuning import statistics
from ddo_plugin.jobs.journal import FILE_NAME, Fact, read
from ddo_plugin.selfplay import evaluation_file
from ddo_plugin.selfplay.recipe.plan import Candidate
from ddo_plugin.selfplay.variants import training_of


@dataclass(frozen=True)
class Point:
    """One evaluated network."""

    round: int
    network: Path
    evaluation: dict[str, Any]
    grid: Path
    candidate: dict[str, Any] | None = None  # the setting that it was trained with; None for a base
    w: float = 1.0  # of a merge of reference and snapshot; 1 for a snapshot

    @property
    def score(self) -> float:
        """The score; lower is better."""
        return self.evaluation["score"]

    @property
    def rank(self) -> float:
        """The score, or infinity if it is not a number."""
        return math.inf if math.isnan(self.score) else self.score

    @property
    def spread(self) -> float:
        """The standard deviation of the score over sampling seeds; 0 if there is only one seed."""
        return self.evaluation.get("spread", 0.0) or 0.0

    def images(self) -> np.ndarray | None:
        """Return a few samples, uint8 [N, C, H, W], if the evaluation kept them."""
        if not self.grid.exists():
            return None
        with parsing(f"{self.grid}: cannot be read", "delete it to leave its images out"):
            images = np.load(self.grid)
            if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.size):
                raise ValueError("it holds no images")
            if images.shape[1] == 2:
                raise ValueError("its images have two channels")
            return images

    def steps(self) -> list[dict[str, float]]:
        """Return the statistics of the network's training; an empty list for a base."""
        file = training_of(self.network) / statistics.FILE_NAME
        return statistics.read(file) if file.exists() else []


@dataclass
class History:
    """One self-play plan: the selected network of every round, the base first."""

    name: str
    points: list[Point] = field(default_factory=list)
    evaluated: list[Point] = field(default_factory=list)  # every network with a full evaluation, in any order
    compared: list[Point] = field(
        default_factory=list
    )  # networks that a search compared; their scores have a scale of their own
    dropped: set[tuple[int, float, float]] = field(
        default_factory=set
    )  # (round, α, β) of the candidates that a search stopped
    ended: str = ""  # why the plan ended before its last round; empty if it did not

    @property
    def base(self) -> Point:
        """The network that the first round starts from."""
        return self.points[0]

    @property
    def best(self) -> Point:
        """The selected network with the lowest score."""
        return min(self.points, key=lambda point: point.rank)


def load(root: Path) -> dict[str, History]:
    """Return the histories of all plans in a run's folder, by name. The run may still be going on."""
    histories: dict[str, History] = {}
    collapses: dict[tuple[str, int], str] = {}
    facts = [fact for fact in read(root / FILE_NAME) if _exists(root, fact)]
    evaluated = {(f["plan"], f["network"]): f for f in facts if f["fact"] == "evaluated"}
    for fact in facts:
        if fact["fact"] == "evaluated" and fact["round"] == 0:
            base = _point(root, fact)
            histories[fact["plan"]] = History(fact["plan"], [base], [base])
        elif fact.get("plan") not in histories:
            continue
        elif fact["fact"] == "evaluated":
            histories[fact["plan"]].evaluated.append(_point(root, fact))
        elif fact["fact"] == "compared":
            histories[fact["plan"]].compared.append(_point(root, fact))
        elif fact["fact"] == "dropped" and fact["candidate"]:
            stopped = fact["candidate"]
            histories[fact["plan"]].dropped.add((fact["round"], stopped["alpha"], stopped["beta"]))
        elif fact["fact"] == "selected":
            histories[fact["plan"]].ended = ""
            points = histories[fact["plan"]].points
            del points[fact["round"] :]  # an earlier run with other settings selected these
            if evaluation := evaluated.get((fact["plan"], fact["network"])):
                points.append(_point(root, evaluation))
        elif fact["fact"] == "collapsed":
            collapses[fact["plan"], fact["round"]] = fact["why"]
        elif fact["fact"] == "stopped":
            histories[fact["plan"]].ended = collapses.get((fact["plan"], fact["round"]), fact["why"])
    return histories


def _exists(root: Path, fact: Fact) -> bool:
    """Return whether an evaluation's file still exists. It does not if its training was deleted to repeat it."""
    return "evaluation" not in fact or (root / fact["evaluation"]).exists()


def _point(root: Path, fact: Fact) -> Point:
    file = root / fact["evaluation"]
    evaluation, grid = evaluation_file.read(file), file.with_suffix(".grid.npy")
    if fact["candidate"]:
        fact["candidate"].fill(Candidate)  # refuses a damaged one
    return Point(fact["round"], root / fact["network"], evaluation, grid, fact["candidate"], fact.get("w", 1.0))
