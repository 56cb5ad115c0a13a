"""The costs of a recipe: the integration tells what each step computes and stores, and this adds it up."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Effort, EvaluationStep, Memory, NetworkCount, RefsetStep, RoundStep
from ddo_plugin.selfplay.forecast.devices import Device
from ddo_plugin.selfplay.recipe.load import Recipe
from ddo_plugin.selfplay.recipe.plan import Plan, Round
from ddo_plugin.selfplay.run import played

OUT = Path("out")  # no step runs, so nothing is written there


class Stage(NamedTuple):
    """A part of a round: so many candidates train until each has written this number of further snapshots."""

    candidates: int
    snapshots: int


def stages(planned: Round, snapshots: int) -> list[Stage]:
    """Return the stages of a round whose trainings write this many snapshots: several in a search, one in a grid."""
    alive, done, found = len(planned.candidates), 0, []
    rungs = planned.search.rungs if planned.search else ()
    for rung in (*(rung for rung in rungs if rung < snapshots), snapshots):
        found.append(Stage(alive, rung - done))
        if planned.search:
            alive = math.ceil(planned.search.keep * alive)
        done = rung
    return found


@dataclass(frozen=True)
class RoundForecast:
    """What one round costs."""

    planned: Round
    device: Device
    refset: Effort | None
    training: Effort
    evaluation: Effort
    comparison: Effort | None = None  # in a search
    paused: Effort | None = None  # in a search, a training that pauses at a rung, where it needs a state

    @cached_property
    def stages(self) -> list[Stage]:
        return stages(self.planned, self.training.snapshots)

    @property
    def trainings(self) -> float:
        """The number of trainings. One that a search stops early counts as a part."""
        return sum(stage.candidates * stage.snapshots for stage in self.stages) / self.training.snapshots

    @property
    def networks(self) -> int:
        """The number of networks that all trainings write."""
        return sum(self._networks(stage) for stage in self.stages)

    @property
    def evaluations(self) -> int:
        """The number of full evaluations."""
        search, merged = self.planned.search, self.planned.merged_later
        if search:
            return min(search.finalists, self.networks) + merged
        return self.networks * len(self.planned.weights_at_once) + merged

    def _networks(self, stage: Stage) -> int:
        return stage.candidates * stage.snapshots * self.training.networks

    def seconds(self, effort: Effort | None) -> float:
        """Return the time of one step on one GPU."""
        return sum(map(self.device.seconds, effort.arithmetic)) if effort else 0.0

    @property
    def parts(self) -> dict[str, float]:
        """The GPU-seconds of all steps of each kind."""
        return {
            "reference set": self.seconds(self.refset),
            "trainings": self.trainings * self.seconds(self.training),
            "comparisons": self.networks * self.seconds(self.comparison),
            "evaluations": self.evaluations * self.seconds(self.evaluation),
        }

    @property
    def gpu_seconds(self) -> float:
        return sum(self.parts.values())

    @property
    def one_candidate(self) -> float:
        """The GPU-seconds of a round that trains a single candidate and evaluates each of its snapshots in full."""
        evaluations = self.training.snapshots * self.training.networks * self.seconds(self.evaluation)
        return self.seconds(self.refset) + self.seconds(self.training) + evaluations

    def elapsed(self, gpus: int, slots: int) -> float:
        """Return the time of the round if `slots` steps run at once, each on its own GPUs."""
        steps = [(1, self.seconds(self.refset))]
        for stage in self.stages:
            share = stage.snapshots / self.training.snapshots
            steps.append((stage.candidates, share * self.seconds(self.training)))
            steps.append((self._networks(stage), self.seconds(self.comparison)))
        steps.append((self.evaluations, self.seconds(self.evaluation)))
        return sum(math.ceil(number / slots) * seconds for number, seconds in steps) / gpus

    @property
    def memory(self) -> Memory | None:
        return self.training.memory

    @property
    def states(self) -> float:
        """The number of training states that all trainings write. Those of a search pause until the last rung."""
        *before, last = self.stages
        pausing = sum(stage.candidates * stage.snapshots for stage in before)
        paused = self.paused.states / self.paused.snapshots if self.paused else 0.0
        return pausing * paused + last.candidates * last.snapshots * self.training.states / self.training.snapshots

    @property
    def disk(self) -> float:
        """The bytes of the reference set, and of all snapshots and states before old ones are deleted."""
        return self._fakes + self.states * self.training.state_bytes + self.networks * self.training.network_bytes

    def left(self, keep: str | int) -> float:
        """Return the bytes that stay after the round; `keep` is the recipe's policy."""
        if keep == "all":
            return self.disk
        return self._fakes + (keep if isinstance(keep, int) else 1) * self.training.network_bytes

    @property
    def _fakes(self) -> float:
        return self.refset.stored if self.refset else 0.0

    @property
    def efforts(self) -> list[Effort]:
        return [effort for effort in (self.refset, self.training, self.comparison, self.evaluation) if effort]


@dataclass(frozen=True)
class Forecast:
    """What a recipe costs on a device, with `gpus` GPUs for each step."""

    recipe: Recipe
    network: NetworkCount
    device: Device
    gpus: int
    counted_in: str  # which network was counted, for people
    rounds: tuple[RoundForecast, ...]
    control: tuple[RoundForecast, ...] = ()  # the rounds with maximum likelihood, if the recipe asks for them
    judgement: Effort | None = None  # of one network at the end

    @property
    def base(self) -> float:
        """The GPU-seconds of the evaluation of the network that the run starts from."""
        return self.rounds[0].seconds(self.rounds[0].evaluation)

    @property
    def judgements(self) -> int:
        """The number of networks that are judged at the end: base, winner, and the control's winner."""
        return 0 if self.judgement is None else 3 if self.control else 2

    @property
    def judging(self) -> float:
        """The GPU-seconds of judging these networks."""
        return self.judgements * self.rounds[0].seconds(self.judgement)

    @property
    def controlling(self) -> float:
        """The GPU-seconds of the control's rounds."""
        return sum(each.gpu_seconds for each in self.control)

    @property
    def gpu_seconds(self) -> float:
        return self.base + sum(each.gpu_seconds for each in self.rounds) + self.controlling + self.judging

    def elapsed(self, slots: int) -> float:
        """Return the time of the run if this many steps run at once. A control takes turns with the other rounds."""
        rounds = sum(each.elapsed(self.gpus, slots) for each in (*self.rounds, *self.control))
        turns = math.ceil(self.judgements / slots) / max(self.judgements, 1)
        return rounds + (self.base + turns * self.judging) / self.gpus

    @property
    def disk(self) -> tuple[float, float]:
        """The most bytes on the disk at any time, and those at the end."""
        keep, most, left = self.recipe.policy.keep, 0.0, 0.0
        for each in (*self.rounds, *self.control):
            most = max(most, left + each.disk)
            left += each.left(keep)
        return most, left

    @property
    def groups(self) -> list[tuple[int, int, RoundForecast]]:
        """The rounds as (first, last, one of them): neighbours that cost the same are one entry."""
        groups: list[tuple[int, int, RoundForecast]] = []
        for _, each in groupby(enumerate(self.rounds, 1), key=lambda numbered: _costs(numbered[1])):
            members = list(each)
            groups.append((members[0][0], members[-1][0], members[0][1]))
        return groups


def _costs(each: RoundForecast) -> Any:
    return each.efforts, len(each.planned.candidates), each.planned.search


def forecast(recipe: Recipe, network: NetworkCount, device: Device, gpus: int, counted_in: str) -> Forecast:
    """Return what a recipe costs if its networks are like this one."""
    plan, start, report = recipe.plan(Path(recipe.start)), Path(recipe.start), recipe.report
    effort = partial(_effort, network, gpus)
    rounds, *control = (
        tuple(_round(each, number, effort, device) for number in range(1, len(each.rounds) + 1))
        for each in played(plan)
    )
    judgement = None
    if report:
        judgement = effort(EvaluationStep(plan.upstream, start, OUT, report.evaluation_seeds, report.evaluation))
    return Forecast(recipe, network, device, gpus, counted_in, rounds, control[0] if control else (), judgement)


def _effort(network: NetworkCount, gpus: int, step: RefsetStep | RoundStep | EvaluationStep) -> Effort:
    answer: Effort | None = plugins.manager().hook.ddo_effort(step=step, network=network, gpus=gpus)
    if answer is None:
        raise UserError(f"the integration of '{step.upstream}' does not tell what its steps cost, so there is no plan")
    return answer


def _round(
    plan: Plan, number: int, effort: Callable[[RefsetStep | RoundStep | EvaluationStep], Effort], device: Device
) -> RoundForecast:
    planned, start, name = plan.at(number), plan.base, plan.upstream
    seed, candidate, search = plan.seed + number, planned.candidates[0], planned.search

    def training(**more: int) -> Effort:
        setting = (candidate.objective, candidate.alpha, candidate.beta)
        return effort(RoundStep(name, start, fakes, OUT, *setting, seed, {**planned.training, **more}))

    fakes = OUT if planned.needs_refset else None
    return RoundForecast(
        planned,
        device,
        effort(RefsetStep(name, start, OUT, planned.refset_count, seed, planned.refset)) if fakes else None,
        training(),
        effort(EvaluationStep(name, start, OUT, planned.evaluation_seeds, planned.evaluation)),
        effort(EvaluationStep(name, start, OUT, search.evaluation_seeds, search.evaluation)) if search else None,
        training(**{"ddo-pause-after": search.rungs[-1]}) if search else None,
    )


def processes(torchrun: str) -> int | None:
    """Return the number of processes that these options of torchrun start; None if they do not say a number."""
    if not torchrun:
        return 1
    per_node, nodes = _option(torchrun, "nproc[-_]per[-_]node"), _option(torchrun, "nnodes")
    if nodes is None and "--nnodes" not in torchrun:
        nodes = 1
    return None if per_node is None or nodes is None else per_node * nodes


def _option(torchrun: str, pattern: str) -> int | None:
    found = re.search(rf"--{pattern}[= ](\d+)(?![\d:])", torchrun)
    return int(found[1]) if found else None
