"""Self-play: reference set → finetuning → evaluation → selection, round after round."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ddo_plugin.errors import COLLAPSE_STATUS, UserError
from ddo_plugin.files import sha256_file
from ddo_plugin.selfplay import pruning, repair
from ddo_plugin.selfplay.executor import StepFailedError
from ddo_plugin.selfplay.parallel import together
from ddo_plugin.selfplay.plan import Candidate, Plan
from ddo_plugin.selfplay.steps import Steps
from ddo_plugin.selfplay.tasks import Runner
from ddo_plugin.snapshots import sidecar


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


def play(plan: Plan, runner: Runner) -> Judged:
    """Run the plan to its end, or go on where an earlier process left it; returns the best network."""
    return _Play(plan, runner).play()


class _Play:
    def __init__(self, plan: Plan, runner: Runner):
        self.plan, self.runner = plan, runner
        self.steps = Steps(plan, runner)
        self._gave_up: set[int] = set()  # rounds in which a step failed for good

    def play(self) -> Judged:
        self._record("plan", upstream=self.plan.upstream, trainings=[len(one.candidates) for one in self.plan.rounds])
        base = self._evaluate(0, self.plan.base)
        if base is None:
            raise AssertionError("the base's evaluation may not fail")
        best = reference = base
        for number in range(1, len(self.plan.rounds) + 1):
            judged = self._round(number, reference)
            if not judged:
                self._record("stopped", round=number, why="every candidate collapsed")
                break
            reference = min(judged, key=lambda candidate: candidate.score)
            self._record("selected", round=number, network=self.runner.relative(reference.network))
            pruning.prune(self.runner, self.plan.name, number, judged)
            best = min(best, reference, key=lambda candidate: candidate.score)
        self.runner.check(best.network)
        sha256 = sidecar.sha256(best.network) or sha256_file(best.network)
        self._record("winner", network=self.runner.relative(best.network), score=best.score, sha256=sha256)
        return best

    def _round(self, number: int, reference: Judged) -> list[Judged]:
        """All snapshots of all candidates of one round, judged; none of a candidate that collapsed or failed."""
        refset = self.steps.refset(number, reference.network)
        fakes = self.runner.run(refset) if refset else None
        tried = [partial(self._try, number, one, reference.network, fakes) for one in self.plan.at(number).candidates]
        judged = [one for found in together(tried, self.runner.executor.stop) for one in found]
        if not judged and number in self._gave_up:
            raise UserError(
                f"{self.plan.name} round {number}: no candidate is left, their steps failed or collapsed; "
                "`ddo selfplay --status` names their logs"
            )
        return judged

    def _try(self, number: int, candidate: Candidate, reference: Path, fakes: Path | None) -> list[Judged]:
        """Train one candidate and judge its snapshots."""
        out = self._train(number, candidate, reference, fakes)
        if out is None:
            return []
        tasks = {snapshot: self.steps.evaluation(number, snapshot, candidate) for snapshot in self._snapshots(out)}
        if repair.discard_damaged(self.runner, out, tasks):
            return self._try(number, candidate, reference, fakes)
        judged = [partial(self._evaluate, number, snapshot, candidate) for snapshot in tasks]
        return [one for one in together(judged, self.runner.executor.stop) if one is not None]

    def _train(self, number: int, candidate: Candidate, reference: Path, fakes: Path | None) -> Path | None:
        """The folder of the run's snapshots, or None if it collapsed or failed for good."""
        task = self.steps.training(number, candidate, reference, fakes)
        name = self.runner.relative(task.out)
        if self.runner.journal.find("collapsed", out=name):
            return None
        try:
            return self.runner.run(task, may_fail=True)
        except StepFailedError as failure:
            if failure.status == COLLAPSE_STATUS:
                why = (failure.tail.splitlines() or ["it said nothing"])[-1]
                self._record("collapsed", round=number, out=name, candidate=asdict(candidate), why=why)
            else:
                self._go_on_without(number, failure)
            return None

    def _snapshots(self, folder: Path) -> list[Path]:
        found = sidecar.described(folder)
        if not found:
            raise UserError(
                f"{folder} holds no snapshot with a sidecar; training must report them by hook ddo_snapshot"
            )
        return found

    def _evaluate(self, number: int, network: Path, candidate: Candidate | None = None) -> Judged | None:
        """The network and its evaluation; None if that failed for good, or came too late for what was pruned."""
        task = self.steps.evaluation(number, network, candidate)
        if not network.exists() and not self.runner.is_finished(task) and pruning.is_pruned(self.runner, network):
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
            "evaluated",
            round=number,
            network=self.runner.relative(network),
            candidate=asdict(candidate) if candidate else None,
            evaluation=self.runner.relative(task.out),
            score=evaluation["score"],
        )
        return Judged(network, evaluation)

    def _go_on_without(self, number: int, failure: StepFailedError) -> None:
        if not self.runner.policy.allow_failures:
            raise failure
        self._gave_up.add(number)

    def _record(self, fact: str, **data: Any) -> None:
        self.runner.journal.append(fact, plan=self.plan.name, **data)
