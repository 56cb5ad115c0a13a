"""What a self-play run is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddo_plugin.jobs.runner import key

if TYPE_CHECKING:
    from ddo_plugin.selfplay.recipe.load import Recipe


@dataclass(frozen=True)
class Candidate:
    """One setting of the objective that a round tries."""

    objective: str
    alpha: float
    beta: float
    needs_fakes: bool = True

    def __str__(self) -> str:
        return f"{self.objective} α={self.alpha:g} β={self.beta:g}"


@dataclass(frozen=True)
class Costs:
    """How long the steps of a round take, relative to one another."""

    refset: float = 1.0
    training: float = 1.0
    evaluation: float = 1.0
    comparison: float = 0.3


@dataclass(frozen=True)
class Search:
    """How a round finds its best candidate without training all of them to the end."""

    rungs: tuple[int, ...]  # after so many snapshots, candidates that lose are stopped
    keep: float  # the share of them that goes on
    finalists: int  # snapshots that are judged in full
    evaluation_seeds: tuple[int, ...]  # of the cheap evaluations: the same for all candidates
    evaluation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """What one round does."""

    candidates: tuple[Candidate, ...]
    refset_count: int
    evaluation_seeds: tuple[int, ...]
    refset: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None  # None: every candidate is trained to the end, every snapshot judged in full

    @property
    def expected_trainings(self) -> float:
        """How many training commands; of a search, as many as its rungs may let go on."""
        count = len(self.candidates)
        if self.search is None:
            return count
        return sum(max(count * self.search.keep**rung, 1.0) for rung in range(len(self.search.rungs) + 1))


@dataclass(frozen=True)
class Plan:
    """A self-play run: what to start from, and what each round does. The base is judged as in the first."""

    name: str
    upstream: str
    base: Path
    rounds: tuple[Round, ...]
    seed: int
    costs: Costs = Costs()
    base_sha256: str | None = None  # where it is known, outputs are named by it rather than by the path

    def at(self, number: int) -> Round:
        """What round `number`, counted from 1, does; 0 is the base."""
        return self.rounds[max(number - 1, 0)]


def of_recipe(recipe: Recipe, base: Path, base_sha256: str | None = None) -> Plan:
    """The plan of a recipe that starts from this network."""
    rounds = tuple(_round(recipe, number) for number in range(1, recipe.rounds + 1))
    return Plan(recipe.path.stem, recipe.upstream, base, rounds, recipe.seed, base_sha256=base_sha256)


def _round(recipe: Recipe, number: int) -> Round:
    settings = recipe.at(number)
    sweep, needs_fakes = settings.sweep, settings.refset is not None
    return Round(
        candidates=tuple(Candidate(sweep.objective, alpha, beta, needs_fakes) for alpha, beta in sweep.pairs()),
        refset_count=settings.refset_count,
        evaluation_seeds=settings.evaluation_seeds,
        refset=recipe.refset_settings(number),
        training=recipe.training_settings(number),
        evaluation=recipe.evaluation_settings(number),
        search=_search(recipe, number),
    )


def _search(recipe: Recipe, number: int) -> Search | None:
    given = recipe.search
    if given.kind != "adaptive":
        return None
    evaluation = {**recipe.evaluation_settings(number), **given.evaluation}
    return Search(given.rungs, given.keep, given.finalists, given.seeds, evaluation)


def identity(plan: Plan) -> str:
    """The key of all that a run is asked to do, wherever its base lies."""
    return key(asdict(replace(plan, base=Path(plan.base.name))))
