"""Self-play: reference set → finetuning → evaluation → selection, round after round."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ddo_plugin.base.errors import COLLAPSE_STATUS, UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.jobs.executor import StepFailedError
from ddo_plugin.jobs.parallel import run_in_parallel
from ddo_plugin.jobs.runner import Runner
from ddo_plugin.selfplay import pruning, repair
from ddo_plugin.selfplay.recipe.plan import Candidate, Plan, Search
from ddo_plugin.selfplay.steps import Steps
from ddo_plugin.selfplay.survivors import survivors
from ddo_plugin.snapshots import sidecar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Judged:
    """A network and what its evaluation found."""

    network: Path
    evaluation: Mapping[str, Any]

    @property
    def score(self) -> float:
        """Lower is better; a score that is not a number is the worst."""
        score = float(self.evaluation["score"])
        return math.inf if math.isnan(score) else score


@dataclass(frozen=True)
class Here:
    """What the candidates of a round start from."""

    number: int
    reference: Path
    fakes: Path | None


@dataclass(frozen=True)
class Rung:
    """After how many snapshots candidates are compared; None: after all."""

    search: Search
    count: int | None


def _ranked(judged: Iterable[Judged]) -> list[Judged]:
    return sorted(judged, key=lambda one: one.score)


def play(plan: Plan, runner: Runner) -> Judged:
    """Run the plan to its end, or go on where an earlier process left it; returns the best network."""
    return _Play(plan, runner).play()


class _Play:
    def __init__(self, plan: Plan, runner: Runner):
        self.plan, self.runner = plan, runner
        self.steps = Steps(plan, runner)
        self._gave_up: set[int] = set()  # rounds in which a step failed for good
        self._collapsed: set[tuple[int, Candidate]] = set()
        self._told: set[str] = set()

    def play(self) -> Judged:
        rounds = [this.workload.announcement() for this in self.plan.rounds]
        self._record("plan", upstream=self.plan.upstream, rounds=rounds)
        base = self._evaluate(0, self.plan.base)
        if base is None:
            raise AssertionError("the base's evaluation may not fail")
        best = reference = base
        for number in range(1, len(self.plan.rounds) + 1):
            judged, others = self._round(number, reference)
            if not judged:
                self._record("stopped", round=number, why="every candidate collapsed")
                break
            reference = judged[0]
            name = self.runner.relative(reference.network)
            self._record("selected", round=number, network=name)
            self._tell(f"round {number}: {reference.score:.4g}, {name}")
            pruning.prune(self.runner, self.plan.name, number, [one.network for one in (*judged, *others)])
            best = min(best, reference, key=lambda candidate: candidate.score)
        self.runner.check(best.network)
        sha256 = sidecar.sha256(best.network) or sha256_file(best.network)
        self._record("winner", network=self.runner.relative(best.network), score=best.score, sha256=sha256)
        return best

    def _round(self, number: int, reference: Judged) -> tuple[list[Judged], list[Judged]]:
        """The snapshots of a round, best first: those judged in full, and others that were only compared."""
        refset = self.steps.refset(number, reference.network)
        here = Here(number, reference.network, self.runner.run(refset) if refset else None)
        search = self.plan.at(number).search
        judged, others = self._adaptive(here, search) if search else (self._grid(here), [])
        if not judged:
            self._refuse_to_end(number)
        return _ranked(judged), _ranked(others)

    def _refuse_to_end(self, number: int) -> None:
        """Self-play is over if every candidate of a round collapsed; nothing to judge for another reason is no end."""
        where = f"{self.plan.name} round {number}"
        if number in self._gave_up:
            raise UserError(
                f"{where}: no candidate is left, their steps failed or collapsed; `ddo selfplay --status` names their "
                "logs"
            )
        if any((number, one) not in self._collapsed for one in self.plan.at(number).candidates):
            raise UserError(
                f"{where} was played with other settings, and the snapshots that these would judge were deleted since "
                "(policy.keep); go back to those settings, or play in another folder"
            )

    def _grid(self, here: Here) -> list[Judged]:
        """All snapshots of all candidates; none of a candidate that collapsed or failed."""
        found = self._together([partial(self._try, here, one) for one in self.plan.at(here.number).candidates])
        return [one for judged in found for one in judged]

    def _adaptive(self, here: Here, search: Search) -> tuple[list[Judged], list[Judged]]:
        """The finalists, judged; and all snapshots that were compared, those of stopped candidates among them."""
        alive = list(self.plan.at(here.number).candidates)
        compared: dict[Candidate, list[Judged]] = {}
        for rung in (*search.rungs, None):
            found = self._together([partial(self._try, here, one, Rung(search, rung)) for one in alive])
            compared |= dict(zip(alive, found, strict=True))  # nothing of whoever collapsed or failed by now
            if rung is not None:
                alive = self._survivors(here, rung, {one: compared[one] for one in alive if compared[one]}, search)
        ranked = _ranked([one for judged in compared.values() for one in judged])
        candidates = {one.network: candidate for candidate, judged in compared.items() for one in judged}
        finalists = [one.network for one in ranked[: search.finalists]]
        tasks = {one: self.steps.evaluation(here.number, one, candidates[one]) for one in finalists}
        if any(repair.discard_damaged(self.runner, one.parent, {one: task}) for one, task in tasks.items()):
            return self._adaptive(here, search)
        judged = self._together([partial(self._evaluate, here.number, one, candidates[one]) for one in finalists])
        full = [one for one in judged if one is not None]
        return full, [one for one in ranked if one.network not in {finalist.network for finalist in full}]

    def _survivors(
        self, here: Here, rung: int, compared: Mapping[Candidate, list[Judged]], search: Search
    ) -> list[Candidate]:
        """Who goes on after a rung, by the best snapshot of each so far."""
        candidates = list(compared)
        kept = survivors([_ranked(compared[one])[0].score for one in candidates], search.keep)
        for place, one in enumerate(candidates):
            if place not in kept:
                self._record("dropped", round=here.number, candidate=asdict(one), snapshots=rung)
        return [candidates[place] for place in kept]

    def _try(self, here: Here, candidate: Candidate, rung: Rung | None = None) -> list[Judged]:
        """Train one candidate, to a rung or to its end, and judge its snapshots, or compare them."""
        out = self._train(here, candidate, rung.count if rung else None)
        if out is None:
            return []
        search = rung.search if rung else None
        tasks = {one: self.steps.evaluation(here.number, one, candidate, search) for one in self._snapshots(out, rung)}
        if repair.discard_damaged(self.runner, out, tasks):
            return self._try(here, candidate, rung)
        judged = self._together([partial(self._evaluate, here.number, one, candidate, search) for one in tasks])
        return [one for one in judged if one is not None]

    def _train(self, here: Here, candidate: Candidate, part: int | None) -> Path | None:
        """The folder of the run's snapshots, or None if it collapsed or failed for good."""
        number = here.number
        task = self.steps.training(number, candidate, here.reference, here.fakes, part)
        name = self.runner.relative(task.out)
        if self.runner.journal.find("collapsed", out=name) and not self.runner.is_finished(task):
            self._collapsed.add((number, candidate))
            return None
        try:
            return self.runner.run(task, may_fail=True)
        except StepFailedError as failure:
            if failure.status == COLLAPSE_STATUS:
                self._record("collapsed", round=number, out=name, candidate=asdict(candidate), why=failure.words)
                self._collapsed.add((number, candidate))
            else:
                self._go_on_without(number, failure)
            return None

    def _snapshots(self, folder: Path, rung: Rung | None) -> list[Path]:
        """Those up to a rung. A training may also write its reference, before it begins; that is judged already."""
        steps = sidecar.steps(folder)[: rung.count if rung else None]
        if not steps:
            raise UserError(
                f"{folder} holds no snapshot with a sidecar; training must report them by hook ddo_snapshot"
            )
        if rung and rung.count and len(steps) < rung.count:
            self._warn(
                f"search.rungs: trainings leave fewer than {rung.count} snapshots, so none is stopped before its end"
            )
        return [one for one in sidecar.described(folder) if sidecar.step(one) in steps]

    def _evaluate(
        self, number: int, network: Path, candidate: Candidate | None = None, search: Search | None = None
    ) -> Judged | None:
        """The network and what was found of it; None if that failed for good, or came too late for what was pruned."""
        task = self.steps.evaluation(number, network, candidate, search)
        if not network.exists() and not self.runner.is_finished(task) and pruning.is_pruned(self.runner, network):
            self._warn(f"round {number}: snapshots that were deleted since (policy.keep) cannot be judged anew")
            return None
        try:
            self.runner.run(task, may_fail=candidate is not None)
        except StepFailedError as failure:
            if candidate is None:
                raise
            self._go_on_without(number, failure)
            return None
        evaluation = json.loads(task.out.read_text())
        self._record(
            "compared" if search else "evaluated",
            round=number,
            network=self.runner.relative(network),
            candidate=asdict(candidate) if candidate else None,
            evaluation=self.runner.relative(task.out),
            score=evaluation["score"],
        )
        return Judged(network, evaluation)

    def _together(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        return run_in_parallel(calls, self.runner.executor.stop)

    def _go_on_without(self, number: int, failure: StepFailedError) -> None:
        if not self.runner.policy.allow_failures:
            raise failure
        self._gave_up.add(number)

    def _tell(self, what: str) -> None:
        """A line above the progress bar."""
        tqdm.write(f"{self.plan.name} {what}", file=sys.stderr)

    def _warn(self, what: str) -> None:
        """Once; what follows from it stands in the journal."""
        if what not in self._told:
            self._told.add(what)
            self._tell(what)

    def _record(self, fact: str, **data: Any) -> None:
        self.runner.journal.append(fact, plan=self.plan.name, **data)
