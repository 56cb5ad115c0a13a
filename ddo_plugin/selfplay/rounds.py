"""Self-play: reference set → finetuning → evaluation → selection, round after round."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ddo_plugin import plugins
from ddo_plugin.errors import COLLAPSE_STATUS, UserError
from ddo_plugin.records import Command, EvaluationStep, RefsetStep, RoundStep
from ddo_plugin.selfplay.executor import StepFailedError
from ddo_plugin.selfplay.tasks import Runner, Task
from ddo_plugin.snapshots import sidecar


@dataclass(frozen=True)
class Candidate:
    """One setting of the objective that a round tries."""

    objective: str
    alpha: float
    beta: float
    needs_fakes: bool = True


@dataclass(frozen=True)
class Costs:
    """How long the steps of a round take, relative to one another."""

    refset: float = 1.0
    training: float = 1.0
    evaluation: float = 1.0


@dataclass(frozen=True)
class Plan:
    """A self-play run: what to start from, how many rounds, and the settings of each step."""

    name: str
    upstream: str
    base: Path
    rounds: int
    candidates: tuple[Candidate, ...]
    seed: int
    refset_count: int
    evaluation_seeds: tuple[int, ...]
    refset: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    costs: Costs = Costs()


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
    best = reference = _evaluate(plan, runner, 0, plan.base, runner.root / "base" / plan.base.stem)
    for number in range(1, plan.rounds + 1):
        judged = _round(plan, runner, number, reference)
        if not judged:
            runner.journal.append("stopped", plan=plan.name, round=number, why="every candidate collapsed")
            break
        reference = min(judged, key=lambda candidate: candidate.score)
        runner.journal.append("selected", plan=plan.name, round=number, network=runner.relative(reference.network))
        best = min(best, reference, key=lambda candidate: candidate.score)
    runner.journal.append("winner", plan=plan.name, network=runner.relative(best.network), score=best.score)
    return best


def _round(plan: Plan, runner: Runner, number: int, reference: Judged) -> list[Judged]:
    """All snapshots of all candidates of one round, judged; none of a candidate that collapsed."""
    judged = []
    fakes = _refset(plan, runner, number, reference.network)
    for candidate in plan.candidates:
        out = _finetune(plan, runner, number, candidate, reference.network, fakes if candidate.needs_fakes else None)
        for snapshot in _snapshots(out) if out else []:
            judged.append(_evaluate(plan, runner, number, snapshot, snapshot.with_suffix(""), candidate))
    return judged


def _snapshots(folder: Path) -> list[Path]:
    found = sidecar.snapshots(folder)
    if not found:
        raise UserError(f"{folder} holds no snapshot with a sidecar; training must report them by hook ddo_snapshot")
    return found


def _refset(plan: Plan, runner: Runner, number: int, network: Path) -> Path | None:
    if not any(candidate.needs_fakes for candidate in plan.candidates):
        return None
    seed = plan.seed + number
    made_from = {"network": network, "count": plan.refset_count, "seed": seed, **plan.refset}
    out = runner.root / plan.name / f"r{number:02d}-refset-{runner.key(made_from)}"
    step = RefsetStep(plan.upstream, network, out, plan.refset_count, seed, plan.refset)
    command = _answered(plugins.manager().hook.ddo_refset_command(step=step), "ddo_refset_command", plan)
    return runner.run(Task(f"{plan.name} round {number} reference set", out, command, plan.costs.refset))


def _finetune(
    plan: Plan, runner: Runner, number: int, candidate: Candidate, reference: Path, fakes: Path | None
) -> Path | None:
    """The folder of the run's snapshots, or None if it collapsed."""
    seed = plan.seed + number
    made_from = {"reference": reference, "fakes": fakes, "seed": seed, **asdict(candidate), **plan.training}
    out = runner.root / plan.name / f"r{number:02d}-train-{runner.key(made_from)}"
    setting = (candidate.objective, candidate.alpha, candidate.beta)
    step = RoundStep(plan.upstream, reference, fakes, out, *setting, seed, plan.training)
    command = _answered(plugins.manager().hook.ddo_round_command(step=step), "ddo_round_command", plan)
    if runner.journal.find("collapsed", out=runner.relative(out)):
        return None
    try:
        return runner.run(Task(f"{plan.name} round {number} training", out, command, plan.costs.training))
    except StepFailedError as failure:
        if failure.status != COLLAPSE_STATUS:
            raise
        why = (failure.tail.splitlines() or ["it said nothing"])[-1]
        runner.journal.append("collapsed", plan=plan.name, round=number, out=runner.relative(out), why=why)
        return None


def _evaluate(
    plan: Plan, runner: Runner, number: int, network: Path, stem: Path, candidate: Candidate | None = None
) -> Judged:
    made_from = {"network": network, "seeds": plan.evaluation_seeds, **plan.evaluation}
    out = stem.with_name(f"{stem.name}-eval-{runner.key(made_from)}.json")
    step = EvaluationStep(plan.upstream, network, out, plan.evaluation_seeds, plan.evaluation)
    command = _answered(plugins.manager().hook.ddo_evaluation_command(step=step), "ddo_evaluation_command", plan)
    runner.run(Task(f"{plan.name} round {number} evaluation", out, command, plan.costs.evaluation))
    evaluation = json.loads(out.read_text())
    runner.journal.append(
        "evaluated",
        plan=plan.name,
        round=number,
        network=runner.relative(network),
        candidate=asdict(candidate) if candidate else None,
        evaluation=runner.relative(out),
        score=evaluation["score"],
    )
    return Judged(network, evaluation)


def _answered(command: Command | None, hook: str, plan: Plan) -> Command:
    if command is None:
        raise UserError(f"no plugin answers {hook} for upstream '{plan.upstream}'; `ddo plugins` lists them")
    return command
