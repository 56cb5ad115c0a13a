"""The rounds of self-play: make a reference set, finetune, evaluate, select the next reference."""

from __future__ import annotations

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
from ddo_plugin.hooks import plugins
from ddo_plugin.jobs.executor import StepFailedError
from ddo_plugin.jobs.parallel import run_in_parallel
from ddo_plugin.jobs.runner import Runner
from ddo_plugin.selfplay import evaluation_file, pruning, repair
from ddo_plugin.selfplay.recipe.plan import BASE, Candidate, Plan, Report, Search
from ddo_plugin.selfplay.steps import Steps
from ddo_plugin.selfplay.survivors import survivors
from ddo_plugin.selfplay.variants import Variant
from ddo_plugin.snapshots import sidecar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Evaluated:
    """A network, the result of its evaluation, and the candidate whose training it comes from."""

    variant: Variant
    evaluation: Mapping[str, Any]
    candidate: Candidate | None = None  # None: the base

    @property
    def network(self) -> Path:
        return self.variant.network

    @property
    def score(self) -> float:
        """Lower is better. A score that is not a number counts as infinite."""
        score = float(self.evaluation["score"])
        return math.inf if math.isnan(score) else score


@dataclass(frozen=True)
class Start:
    """The reference and the fakes with which the candidates of a round start."""

    number: int  # of the round
    reference: Path
    fakes: Path | None


@dataclass(frozen=True)
class Rung:
    """The number of snapshots after which a search compares the candidates; None: after the last snapshot."""

    search: Search
    count: int | None


def _ranked(networks: Iterable[Evaluated]) -> list[Evaluated]:
    """Return the networks, best first."""
    return sorted(networks, key=lambda evaluated: evaluated.score)


def play(plan: Plan, runner: Runner) -> Evaluated:
    """Run the plan to its end, or resume it, and return the best network."""
    return _Play(plan, runner).play()


class _Play:
    def __init__(self, plan: Plan, runner: Runner):
        self.plan, self.runner = plan, runner
        self.steps = Steps(plan, runner)
        self._rounds_with_failures: set[int] = set()
        self._collapsed: set[tuple[int, Candidate]] = set()
        self._warnings: set[str] = set()

    def play(self) -> Evaluated:
        rounds = [planned.workload.announcement() for planned in self.plan.rounds]
        judgements = {"judgements": len(self.plan.roles)} if self.plan.report else {}
        self._record("plan", upstream=self.plan.upstream, rounds=rounds, **judgements)
        base = self._evaluate(Start(0, self.plan.base, None), Variant(self.plan.base))
        if base is None:
            raise AssertionError("the evaluation of the base returns a result or raises")
        best = reference = base
        for number in range(1, len(self.plan.rounds) + 1):
            snapshots, others = self._round(number, reference)
            if not snapshots:
                self._record("stopped", round=number, why="every candidate collapsed")
                break
            reference = snapshots[0]
            name = self.runner.relative(reference.network)
            self._record("selected", round=number, network=name)
            self._print(f"round {number}: {reference.score:.4g}, {name}")
            ranked = [*snapshots, *others]
            files = dict.fromkeys([each.network for each in ranked] + [each.variant.snapshot for each in ranked])
            pruning.prune(self.runner, self.plan.name, number, [file for file in files if file.exists()])
            best = min(best, reference, key=lambda evaluated: evaluated.score)
        self.runner.check(best.network)
        if self.plan.report:
            self._judge({role: base if role == BASE else best for role in self.plan.roles}, self.plan.report)
        sha256 = sidecar.sha256(best.network) or sha256_file(best.network)
        self._record("winner", network=self.runner.relative(best.network), score=best.score, sha256=sha256)
        return best

    def _judge(self, networks: Mapping[str, Evaluated], report: Report) -> None:
        """Evaluate networks with seeds that selected none of them."""
        tasks = {role: self.steps.judgement(role, each.network, report) for role, each in networks.items()}
        self._in_parallel([partial(self.runner.run, task) for task in tasks.values()])
        for role, task in tasks.items():
            network = networks[role]
            self._record(
                "judged",
                role=role,
                network=self.runner.relative(network.network),
                evaluation=self.runner.relative(task.out),
                score=evaluation_file.read(task.out)["score"],
                selected_by=network.evaluation["score"],
            )

    def _round(self, number: int, reference: Evaluated) -> tuple[list[Evaluated], list[Evaluated]]:
        """Return the networks of a round, best first: those with a full evaluation, and those only compared."""
        refset = self.steps.refset(number, reference.network)
        start = Start(number, reference.network, self.runner.run(refset) if refset else None)
        search = self.plan.at(number).search
        snapshots, others = self._adaptive(start, search) if search else (self._grid(start), [])
        if not snapshots:
            self._check_that_all_collapsed(number)
        self._delete_states(start)
        ranked = _ranked([*snapshots, *self._merged(start, _ranked(snapshots))])
        for best in ranked[:1]:
            self._keep(start, best)
        return ranked, _ranked(others)

    def _merged(self, start: Start, snapshots: Sequence[Evaluated]) -> list[Evaluated]:
        """Merge the best snapshots, if the recipe asks for this, and return the evaluated networks."""
        this = self.plan.at(start.number)
        if not this.merged_later or this.merge is None:
            return []
        chosen = snapshots[: this.merge.best]
        variants = {Variant(each.variant.snapshot, w): each.candidate for each in chosen for w in this.merge.others}
        return self._evaluate_all(start, variants)

    def _keep(self, start: Start, best: Evaluated) -> None:
        """Make the best network again if it is a merged one, which was deleted after its evaluation."""
        if best.variant.is_merged:
            self.runner.run(self.steps.merge(start.number, best.variant, start.reference))

    def _delete_states(self, start: Start) -> None:
        """Delete the training states of a round whose evaluations are all done."""
        upstream = plugins.upstreams_by_name().get(self.plan.upstream)
        patterns = upstream.states if upstream else ()
        for candidate in self.plan.at(start.number).candidates if patterns else ():
            task = self.steps.training(start.number, candidate, start.reference, start.fakes)
            pruning.delete_states(self.runner, task.out, patterns)

    def _check_that_all_collapsed(self, number: int) -> None:
        """Refuse to end self-play after a round without snapshots, unless every candidate of the round collapsed."""
        where = f"{self.plan.name} round {number}"
        if number in self._rounds_with_failures:
            raise UserError(
                f"{where}: no candidate is left, because their steps failed or collapsed; `ddo selfplay --status` "
                "names their logs"
            )
        if any((number, candidate) not in self._collapsed for candidate in self.plan.at(number).candidates):
            raise UserError(
                f"{where} was played with other settings, and the snapshots to evaluate with the new settings were "
                "deleted (policy.keep); return to the old settings, or choose another folder with --out"
            )

    def _grid(self, start: Start) -> list[Evaluated]:
        """Train all candidates to the end, and return all their snapshots. Skip candidates that collapse or fail."""
        candidates = self.plan.at(start.number).candidates
        snapshots = self._in_parallel([partial(self._try, start, candidate) for candidate in candidates])
        return [evaluated for of_candidate in snapshots for evaluated in of_candidate]

    def _adaptive(self, start: Start, search: Search) -> tuple[list[Evaluated], list[Evaluated]]:
        """Return the finalists, evaluated in full, and all other snapshots, including those of stopped candidates."""
        number = start.number
        alive = list(self.plan.at(number).candidates)
        compared: dict[Candidate, list[Evaluated]] = {}
        for rung in (*search.rungs, None):
            attempts = [partial(self._try, start, candidate, Rung(search, rung)) for candidate in alive]
            # A candidate that has collapsed or failed has no snapshots here, so it is dropped.
            compared |= dict(zip(alive, self._in_parallel(attempts), strict=True))
            if rung is not None:
                in_race = {candidate: compared[candidate] for candidate in alive if compared[candidate]}
                alive = self._survivors(number, rung, in_race, search)
        ranked = _ranked([evaluated for of_candidate in compared.values() for evaluated in of_candidate])
        finalists = {each.variant: each.candidate for each in ranked[: search.finalists]}
        tasks = {each: self.steps.evaluation(number, each.network, made_by) for each, made_by in finalists.items()}
        if any(repair.discard_damaged(self.runner, each.snapshot.parent, {each: task}) for each, task in tasks.items()):
            return self._adaptive(start, search)
        full = self._evaluate_all(start, finalists)
        paths = {evaluated.network for evaluated in full}
        return full, [snapshot for snapshot in ranked if snapshot.network not in paths]

    def _survivors(
        self, number: int, rung: int, compared: Mapping[Candidate, list[Evaluated]], search: Search
    ) -> list[Candidate]:
        """Return the candidates that continue after a rung, according to the best snapshot of each so far."""
        candidates = list(compared)
        kept = survivors([_ranked(compared[candidate])[0].score for candidate in candidates], search.keep)
        for place, candidate in enumerate(candidates):
            if place not in kept:
                self._record("dropped", round=number, candidate=asdict(candidate), snapshots=rung)
        return [candidates[place] for place in kept]

    def _try(self, start: Start, candidate: Candidate, rung: Rung | None = None) -> list[Evaluated]:
        """Train a candidate to the end and evaluate its snapshots; with a rung, train it up to there and compare."""
        out = self._train(start, candidate, rung.count if rung else None)
        if out is None:
            return []
        number, search = start.number, rung.search if rung else None
        weights = self.plan.at(number).weights_at_once
        variants = [Variant(snapshot, w) for snapshot in self._snapshots(out, rung) for w in weights]
        tasks = {each: self.steps.evaluation(number, each.network, candidate, search) for each in variants}
        if repair.discard_damaged(self.runner, out, tasks):
            return self._try(start, candidate, rung)
        return self._evaluate_all(start, dict.fromkeys(variants, candidate), search)

    def _train(self, start: Start, candidate: Candidate, part: int | None) -> Path | None:
        """Return the folder of the training's snapshots, or None if it collapsed or was abandoned."""
        number = start.number
        task = self.steps.training(number, candidate, start.reference, start.fakes, part)
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
                self._continue_without(number, failure)
            return None

    def _snapshots(self, folder: Path, rung: Rung | None) -> list[Path]:
        """Return a training's snapshots up to a rung, without the copy of its reference that it may write first."""
        steps = sidecar.steps(folder)[: rung.count if rung else None]
        if not steps:
            raise UserError(
                f"{folder} holds no snapshot with a sidecar; the integration must report snapshots to hook ddo_snapshot"
            )
        if rung and rung.count and len(steps) < rung.count:
            self._warn(
                f"search.rungs: trainings write fewer than {rung.count} snapshots, so this rung stops no candidate"
            )
        return [path for path in sidecar.described(folder) if sidecar.step(path) in steps]

    def _evaluate_all(
        self, start: Start, variants: Mapping[Variant, Candidate | None], search: Search | None = None
    ) -> list[Evaluated]:
        """Evaluate networks, each made by its candidate. Leave out those that `_evaluate` has no result for."""
        calls = [partial(self._evaluate, start, each, made_by, search) for each, made_by in variants.items()]
        return [evaluated for evaluated in self._in_parallel(calls) if evaluated is not None]

    def _evaluate(
        self, start: Start, variant: Variant, candidate: Candidate | None = None, search: Search | None = None
    ) -> Evaluated | None:
        """Evaluate a network. Return None if the evaluation was abandoned, or if the snapshot was pruned before it."""
        number, network, snapshot = start.number, variant.network, variant.snapshot
        task = self.steps.evaluation(number, network, candidate, search)
        finished = self.runner.is_finished(task)
        if not snapshot.exists() and not finished and pruning.is_pruned(self.runner, snapshot):
            self._warn(f"round {number}: snapshots that were deleted (policy.keep) cannot be evaluated again")
            return None
        try:
            if variant.is_merged and not finished:
                self.runner.run(self.steps.merge(number, variant, start.reference), may_fail=True)
            self.runner.run(task, may_fail=candidate is not None)
        except StepFailedError as failure:
            if candidate is None:
                raise
            self._continue_without(number, failure)
            return None
        if variant.is_merged:
            pruning.discard(self.runner, network, task.out)
        evaluation = evaluation_file.read(task.out)
        merged = {"w": variant.w} if variant.is_merged else {}
        self._record(
            "compared" if search else "evaluated",
            round=number,
            network=self.runner.relative(network),
            candidate=asdict(candidate) if candidate else None,
            evaluation=self.runner.relative(task.out),
            score=evaluation["score"],
            **merged,
        )
        return Evaluated(variant, evaluation, candidate)

    def _in_parallel(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        return run_in_parallel(calls, self.runner.executor.stop)

    def _continue_without(self, number: int, failure: StepFailedError) -> None:
        if not self.runner.policy.allow_failures:
            raise failure
        self._rounds_with_failures.add(number)

    def _print(self, text: str) -> None:
        """Print a line above the progress bar."""
        tqdm.write(f"{self.plan.name} {text}", file=sys.stderr)

    def _warn(self, text: str) -> None:
        """Print a line, unless it was printed before."""
        if text not in self._warnings:
            self._warnings.add(text)
            self._print(text)

    def _record(self, fact: str, **data: Any) -> None:
        self.runner.journal.append(fact, plan=self.plan.name, **data)
