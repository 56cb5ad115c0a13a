"""`ddo demo`: self-play of both families beside their controls, through the machinery that real upstreams use."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ddo_integrations.demo.names import UPSTREAM
from ddo_integrations.demo.plugin import command
from ddo_integrations.demo.settings import CONTROL, Setting, Settings, training_flags
from ddo_plugin.jobs.executor import LocalExecutor
from ddo_plugin.jobs.journal import Journal
from ddo_plugin.jobs.runner import Runner, Task, key
from ddo_plugin.jobs.supervise import opened, supervise
from ddo_plugin.selfplay.plan import Candidate, Plan, Round
from ddo_plugin.selfplay.play import play

DATA_COST, TOY_COST = 5.0, 12.0
MOST_SLOTS = 4  # two families with two arms each


@dataclass(frozen=True)
class Demo:
    """What to run and where."""

    out: Path
    families: tuple[str, ...]
    settings: Settings
    rounds: int | None = None  # None: as many as each family's setting says
    seed: int = 0

    def setting(self, family: str) -> Setting:
        return self.settings.families[family]


def run(demo: Demo) -> Journal:
    """Run the demo, or go on where an earlier one was interrupted; returns the journal of what happened."""
    executor = LocalExecutor(slots=min(_cores(), MOST_SLOTS), threads_per_command=1)
    arms = [(family, arm) for family in demo.families for arm in (demo.setting(family).candidate, CONTROL)]
    with opened(demo.out, executor, key({**asdict(demo), "out": None})) as runner:
        jobs = [partial(_play_arm, demo, runner, family, candidate) for family, candidate in arms]
        supervise(runner, _total_cost(demo), [*jobs, partial(_run_toy, demo, runner)])
    return runner.journal


def _play_arm(demo: Demo, runner: Runner, family: str, candidate: Candidate) -> None:
    """Everything one arm needs; what it shares with another arm is run by whichever comes first."""
    setting = demo.setting(family)
    data = _prepare_data(demo, runner)
    base = _pretrain(demo, runner, data, family)
    common = {"family": family, "data": data}
    each = Round(
        candidates=(candidate,),
        refset_count=setting.refset_count,
        evaluation_seeds=setting.evaluation_seeds,
        refset=common,
        training=training_flags(setting) | common,
        evaluation=common | {"count": setting.evaluation_count},
    )
    rounds = (each,) * (demo.rounds or setting.rounds)
    play(Plan(f"{family}/{candidate.objective}", UPSTREAM, base, rounds, demo.seed, setting.costs), runner)


def _prepare_data(demo: Demo, runner: Runner) -> Path:
    out = runner.root / f"data-{key({'seed': demo.seed})}"
    return runner.run(Task("digits", out, command("prepare", {"out": out, "seed": demo.seed}), DATA_COST))


def _pretrain(demo: Demo, runner: Runner, data: Path, family: str) -> Path:
    """The base network: maximum likelihood from scratch."""
    setting = demo.setting(family)
    flags = {"family": family, "seed": demo.seed, **setting.pretraining}
    out = runner.root / "base" / f"{family}-{key(flags)}"
    pretraining = command("train", flags | {"data": data, "outdir": out})
    folder = runner.run(Task(f"{family} pretraining", out, pretraining, setting.pretraining_cost))
    return max(folder.glob("network-*.safetensors"))


def _run_toy(demo: Demo, runner: Runner) -> None:
    flags = {"seed": demo.seed, **demo.settings.toy}
    out = runner.root / f"toy-{key(flags)}.npz"
    runner.run(Task("toy", out, command("toy", flags | {"out": out}), TOY_COST))
    runner.journal.append("toy", out=runner.relative(out))


def _cores() -> int:
    """Those this process may use, which in a container are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _total_cost(demo: Demo) -> float:
    total = DATA_COST + TOY_COST
    for family in demo.families:
        setting = demo.setting(family)
        rounds = demo.rounds or setting.rounds
        costs = setting.costs
        total += setting.pretraining_cost + costs.evaluation
        total += rounds * (costs.refset + 2 * (costs.training + costs.evaluation))
    return total
