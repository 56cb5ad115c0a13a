"""`ddo demo`: self-play of both families and their controls, by the same code that real upstreams use."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ddo_integrations.demo.names import UPSTREAM
from ddo_integrations.demo.plugin import command
from ddo_integrations.demo.settings import Setting, Settings, training_flags
from ddo_plugin.base.environment import core_count
from ddo_plugin.jobs.executor import LocalExecutor
from ddo_plugin.jobs.journal import Journal
from ddo_plugin.jobs.runner import Runner, Task, key
from ddo_plugin.jobs.supervise import open_runner, supervise
from ddo_plugin.selfplay.play import play
from ddo_plugin.selfplay.recipe.plan import LIKELIHOOD, Candidate, Plan, Round

DATA_COST, TOY_COST = 5.0, 12.0
MOST_SLOTS = 4  # two families with two arms each


@dataclass(frozen=True)
class Demo:
    """What the demo runs, and in which folder."""

    out: Path
    families: tuple[str, ...]
    settings: Settings
    rounds: int | None = None  # None: as many as each family's setting says
    seed: int = 0

    def setting(self, family: str) -> Setting:
        """Return the settings of a family."""
        return self.settings.families[family]

    def arms(self) -> list[tuple[str, Candidate]]:
        """Return each family with DDO and with the control."""
        return [(family, arm) for family in self.families for arm in (self.setting(family).candidate, LIKELIHOOD)]


def run(demo: Demo) -> Journal:
    """Run the demo, or resume it, and return its journal."""
    executor = LocalExecutor(slots=min(core_count(), MOST_SLOTS), threads_per_command=1)
    with open_runner(demo.out, executor, key({**asdict(demo), "out": None})) as runner:
        jobs = [partial(_play_arm, demo, runner, family, candidate) for family, candidate in demo.arms()]
        supervise(runner, _total_cost(demo), [*jobs, partial(_run_toy, demo, runner)])
    return runner.journal


def _play_arm(demo: Demo, runner: Runner, family: str, candidate: Candidate) -> None:
    """Run one arm of a family. The step that it shares with another arm runs once, for whichever arm comes first."""
    data = _prepare_data(demo, runner)
    base = _pretrain(demo, runner, data, family)
    rounds, costs = _rounds(demo, family, candidate, data), demo.setting(family).costs
    play(Plan(f"{family}/{candidate.objective}", UPSTREAM, base, rounds, demo.seed, costs), runner)


def _rounds(demo: Demo, family: str, candidate: Candidate, data: Path) -> tuple[Round, ...]:
    """Return the rounds of one arm, all alike."""
    setting, common = demo.setting(family), {"family": family, "data": data}
    each = Round(
        candidates=(candidate,),
        refset_count=setting.refset_count,
        evaluation_seeds=setting.evaluation_seeds,
        refset=common,
        training=training_flags(setting) | common,
        evaluation=common | {"count": setting.evaluation_count},
    )
    return (each,) * (demo.rounds or setting.rounds)


def _prepare_data(demo: Demo, runner: Runner) -> Path:
    out = runner.root / f"data-{key({'seed': demo.seed})}"
    return runner.run(Task("digits", out, command("prepare", {"out": out, "seed": demo.seed}), DATA_COST))


def _pretrain(demo: Demo, runner: Runner, data: Path, family: str) -> Path:
    """Train the base network from scratch by maximum likelihood."""
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


def _total_cost(demo: Demo) -> float:
    """Return the cost of all steps. The two arms of a family share the base network and its evaluation."""
    families = [demo.setting(family) for family in demo.families]
    shared = DATA_COST + TOY_COST + sum(setting.pretraining_cost + setting.costs.evaluation for setting in families)
    rounds = [
        this.cost(demo.setting(family).costs)
        for family, candidate in demo.arms()
        for this in _rounds(demo, family, candidate, demo.out)
    ]
    return shared + sum(rounds)
