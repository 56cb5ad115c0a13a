"""The plan of a self-play run: the network it starts from, and what each round does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ddo_plugin.jobs.runner import key

# The journal stores `identity`, a hash of the fields below: a field that is renamed makes finished runs start over.


@dataclass(frozen=True)
class Candidate:
    """One setting of the objective that a round tries."""

    objective: str
    alpha: float
    beta: float | str  # a number, or "auto"
    needs_fakes: bool = True

    def __str__(self) -> str:
        return f"{self.objective} α={self.alpha:g} β={shown(self.beta)}"


def shown(value: float | str) -> str:
    """Return a value of a sweep as text."""
    return value if isinstance(value, str) else f"{value:g}"


LIKELIHOOD = Candidate("mle", 1.0, 1.0, needs_fakes=False)  # of the control
BASE, WINNER, CONTROL = "base", "winner", "control"


@dataclass(frozen=True)
class Costs:
    """How long each kind of step takes. The unit is free, as only the progress bar and the time left depend on it."""

    refset: float = 1.0
    training: float = 1.0
    evaluation: float = 1.0
    comparison: float = 0.3


@dataclass(frozen=True)
class Search:
    """How a round finds its best candidate without training all candidates to the end."""

    rungs: tuple[int, ...]  # numbers of snapshots after which the candidates are compared and the worst are stopped
    keep: float  # share of the candidates that continues after a rung
    finalists: int  # number of snapshots that get a full evaluation at the end
    evaluation_seeds: tuple[int, ...]  # sampling seeds of the comparisons, the same for all candidates
    evaluation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Merge:
    """Which networks θ_ref + w·(θ − θ_ref) a round evaluates, where θ is a snapshot; w = 1 is the snapshot itself."""

    weights: tuple[float, ...]
    best: int | None = None  # merge so many snapshots, the best at w = 1; None: all, or in a search all finalists

    @property
    def others(self) -> tuple[float, ...]:
        """The weights of networks that are not snapshots."""
        return tuple(w for w in self.weights if w != 1)


@dataclass(frozen=True)
class Report:
    """How the networks of a run are judged at its end: with sampling seeds that selected none of them."""

    evaluation_seeds: tuple[int, ...]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    control: bool = False  # whether a second run with maximum likelihood is played and judged beside this one


@dataclass(frozen=True)
class Workload:
    """The number of trainings and evaluations in a round."""

    candidates: int
    trainings: float  # commands; an expected value in a search, which stops some candidates early
    finalists: int | None = None  # None: not a search, so every snapshot gets a full evaluation
    weights: int = 1  # networks that are evaluated for each snapshot
    merged: int = 0  # merged networks that are evaluated besides

    def announcement(self) -> dict[str, Any]:
        """Return the workload as the journal stores it, without the values of a round that merges nothing."""
        usual = {"finalists": None, "weights": 1, "merged": 0}
        return {name: value for name, value in asdict(self).items() if usual.get(name, ...) != value}

    def cost(self, costs: Costs, snapshots: float = 1.0) -> float:
        """Return the cost of all trainings and evaluations if each training leaves this number of new snapshots."""
        if self.finalists is None:
            evaluations = self.trainings * snapshots * self.weights + self.merged
            return self.trainings * costs.training + evaluations * costs.evaluation
        evaluations = self.finalists + self.merged
        return self.trainings * (costs.training + snapshots * costs.comparison) + evaluations * costs.evaluation


@dataclass(frozen=True)
class Round:
    """What one round does."""

    candidates: tuple[Candidate, ...]
    refset_count: int
    evaluation_seeds: tuple[int, ...]
    refset: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None  # None: train every candidate to the end, and evaluate every snapshot in full
    merge: Merge | None = None  # None: evaluate the snapshots only

    @property
    def needs_refset(self) -> bool:
        """Whether any candidate trains on samples of the reference."""
        return any(candidate.needs_fakes for candidate in self.candidates)

    @property
    def selecting_seeds(self) -> set[int]:
        """The sampling seeds by which networks are compared and selected."""
        return {*self.evaluation_seeds, *(self.search.evaluation_seeds if self.search else ())}

    @property
    def weights_at_once(self) -> tuple[float, ...]:
        """The w of the networks that are evaluated as soon as a snapshot is there."""
        return self.merge.weights if self.merge and self.merge.best is None and not self.search else (1.0,)

    @property
    def merged_later(self) -> int:
        """The number of merged networks that are evaluated once the best snapshots are known, at most."""
        if self.merge is None or (self.merge.best is None and not self.search):
            return 0
        best = [self.merge.best, self.search.finalists if self.search else None]
        return len(self.merge.others) * min(count for count in best if count is not None)

    @property
    def workload(self) -> Workload:
        """The number of trainings and evaluations."""
        count = len(self.candidates)
        weights, merged = len(self.weights_at_once), self.merged_later
        if self.search is None:
            return Workload(count, count, weights=weights, merged=merged)
        shares = [self.search.keep**rung for rung in range(len(self.search.rungs) + 1)]
        trainings = sum(max(count * share, 1.0) for share in shares)
        return Workload(count, trainings, self.search.finalists, merged=merged)

    def cost(self, costs: Costs) -> float:
        """Return the cost of the round's reference set, trainings and evaluations."""
        return (costs.refset if self.needs_refset else 0.0) + self.workload.cost(costs)


@dataclass(frozen=True)
class Plan:
    """A self-play run: the network it starts from, and what each round does. Round 1 says how to evaluate the base."""

    name: str
    upstream: str
    base: Path
    rounds: tuple[Round, ...]
    seed: int
    costs: Costs = Costs()
    base_sha256: str | None = None  # names the base in the hash of an output; its path does if the digest is unknown
    report: Report | None = None  # None: no network is judged again
    roles: tuple[str, ...] = (BASE, WINNER)  # of the networks that are judged: the base, and the best of all

    def at(self, number: int) -> Round:
        """Return what round `number` does, counted from 1; 0 stands for the base."""
        return self.rounds[max(number - 1, 0)]

    @property
    def cost(self) -> float:
        """The cost of the whole run."""
        rounds = self.costs.evaluation + sum(planned.cost(self.costs) for planned in self.rounds)
        return rounds + len(self.roles) * self.judgement_cost

    @property
    def judgement_cost(self) -> float:
        """The cost of judging one network at the end of the run."""
        if self.report is None:
            return 0.0
        return self.costs.evaluation * len(self.report.evaluation_seeds) / len(self.rounds[-1].evaluation_seeds)

    def control(self) -> Plan:
        """Return the run with maximum likelihood instead of the objective, and otherwise the same."""
        rounds = tuple(replace(this, candidates=(LIKELIHOOD,), search=None, merge=None) for this in self.rounds)
        return replace(self, name=f"{self.name}-{CONTROL}", rounds=rounds, roles=(CONTROL,))


def identity(plan: Plan) -> str:
    """Return the hash of everything that the run is asked to do. It does not depend on the base's folder."""
    settings = asdict(replace(plan, base=Path(plan.base.name)))
    del settings["roles"]  # they follow from the report
    if settings["report"] is None:  # as in plans of older versions
        del settings["report"]
    for each in settings["rounds"]:
        if each["merge"] is None:  # as in rounds of older versions
            del each["merge"]
    return key(settings)
