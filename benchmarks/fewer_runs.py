"""`--ddo-beta=auto` against a grid over β, on the demo's two families: `python -m benchmarks.fewer_runs OUT`.

Trains one round with each β of a grid, with `auto`, with two other rules that choose β in a probe, and the control.
Prints the Fréchet distance by the sampling seeds that would choose a setting, and by others that choose nothing. Takes
about half an hour of one core; if it is started again, it keeps what was finished.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.gpu.report import table
from ddo_integrations.demo import evaluate, prepare, train
from ddo_integrations.demo.settings import FULL
from ddo_plugin import Objective, Outcome, Terms, TrainsOn, hookimpl
from ddo_plugin.base.files import write_json
from ddo_plugin.cli import main as ddo
from ddo_plugin.finetuning.calibration import FILE_NAME
from ddo_plugin.finetuning.statistics import FILE_NAME as STATISTICS
from ddo_plugin.finetuning.statistics import read
from ddo_plugin.hooks import plugins
from ddo_plugin.objective.ddo import DDO

CHOOSING, UNSEEN = "101-102", "201-203"  # sampling seeds
COUNT = 2000  # samples for each sampling seed
BETAS = (0.03, 0.1, 0.3)
LAST = 16  # steps whose statistics are shown
PRETRAINING = {  # options of the base of each family
    "diffusion": {"steps": 3000, "lr": 1e-3, "decay": 0.5, "ema": 100},  # as in recipes/digits.toml
    "tokens": FULL.families["tokens"].pretraining,
}
FAKES = 5000


@dataclass(frozen=True)
class Problem:
    """A family, and the settings of a round."""

    family: str
    alpha: float
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the demo's settings
    seeds: Sequence[int] = (0,)  # of the trainings

    @property
    def training(self) -> dict[str, Any]:
        """The options of a round."""
        return {**FULL.families[self.family].training, **self.changes}


PROBLEMS = {
    "diffusion": Problem("diffusion", 2.0, seeds=(0, 1, 2)),
    "tokens": Problem("tokens", 0.5, seeds=(0, 1, 2)),
    "diffusion, α = 1": Problem("diffusion", 1.0),
    "diffusion, α = 4": Problem("diffusion", 4.0),
    "diffusion, 3 × learning rate": Problem("diffusion", 2.0, {"lr": 3e-4}),
    "diffusion, rising learning rate": Problem("diffusion", 2.0, {"warmup": 1.0, "steps": 800}),
}


@dataclass
class ByRatios:
    """DDO with a β that follows the size of r for 200 steps, such that β times the size is the target; then it stays.

    The loss is divided by β, so that the optimizer sees gradients of one size.
    """

    alpha: float
    size: Callable[[torch.Tensor], torch.Tensor]
    target: float
    smoothed: float = 0.0
    beta: float = 1.0
    steps: int = 0
    trains_on: TrainsOn = "both"

    def __call__(self, terms: Terms) -> Outcome:
        assert terms.r_real is not None and terms.r_fake is not None
        if self.steps < 200 and self.smoothed:
            self.beta = min(1.0, self.target / self.smoothed)
        self.steps += 1
        size = float(self.size(torch.cat([terms.r_real.detach(), terms.r_fake.detach()])))
        self.smoothed = 0.9 * self.smoothed + 0.1 * size if self.smoothed else size
        outcome = DDO(self.alpha, self.beta)(terms)
        found = {**outcome.statistics, "beta": torch.tensor(self.beta)}
        return Outcome(outcome.real / self.beta, outcome.fake / self.beta, found)


class Plugin:
    """Offers the two other rules as objectives. Their targets were chosen by hand on the first two problems."""

    @hookimpl
    def ddo_objectives(self) -> Mapping[str, Callable[[Mapping[str, Any]], Objective]]:
        """Return the objectives by name."""
        return {
            "by-std": lambda options: ByRatios(options["ddo_alpha"], torch.std, 0.6),
            "by-quantile": lambda options: ByRatios(options["ddo_alpha"], lambda r: r.abs().quantile(0.9), 1.6),
        }


RULES = {"β · std(r) = 0.6": {"ddo-objective": "by-std"}, "90 % of |β r| < 1.6": {"ddo-objective": "by-quantile"}}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "mle": {"ddo-objective": "mle"},
    **{f"β = {beta:g}": {"ddo-beta": beta} for beta in BETAS},
    "auto": {"ddo-beta": "auto"},
    **RULES,
}


def measured(out: Path, main: click.Command, flags: Mapping[str, Any], *words: str) -> Path:
    """Run a command in a child process, unless it was run to its end before, and record its processor seconds."""
    done = out.with_name(out.name + ".seconds")
    if not done.exists():
        argv = [*words, *(f"--{name}={value}" for name, value in flags.items())]
        context = multiprocessing.get_context("fork")  # a new interpreter would import torch again
        child = context.Process(target=main.main, args=(argv,), kwargs={"standalone_mode": False})
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        child.start()
        child.join()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if child.exitcode != 0:
            raise RuntimeError(f"{out}: exit status {child.exitcode}")
        write_json(done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return out


class Round:
    """One round of a problem, from the same base and the same fakes for every arm."""

    def __init__(self, out: Path, name: str):
        self.problem = PROBLEMS[name]
        family = self.problem.family
        shared, self.root = out / family, out / name.replace(" ", "")
        for folder in (shared, self.root):
            folder.mkdir(parents=True, exist_ok=True)
        self.own = {"family": family, "data": measured(out / "data", prepare.main, {"out": out / "data"})}
        base = {**self.own, **PRETRAINING[family], "outdir": shared / "base"}
        self.base = max(measured(shared / "base", train.main, base).glob("*.safetensors"))
        fakes = {**self.own, "upstream": "digits", "network": self.base, "out": shared / "fakes", "seed": 1}
        self.fakes = measured(shared / "fakes", ddo, {**fakes, "count": FAKES}, "refset", "make")

    def train(self, arm: str, seed: int) -> Path:
        """Train an arm and return its last snapshot."""
        out = self.root / f"{arm}-{seed}".replace(" ", "")
        start = {"ddo": self.base, "ddo-fakes": self.fakes, "ddo-alpha": self.problem.alpha}
        flags = {**self.own, **self.problem.training, **start, **ARMS[arm], "seed": seed, "outdir": out}
        return max(measured(out, train.main, flags).glob("*.safetensors"))

    def judge(self, network: Path, seeds: str) -> dict[str, Any]:
        """Return the evaluation of a network with these sampling seeds."""
        out = network.with_name(f"{network.stem}-{seeds}.json")
        measured(out, evaluate.main, {**self.own, "network": network, "out": out, "seeds": seeds, "count": COUNT})
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    def row(self, name: str, networks: Sequence[Path]) -> tuple[str, ...]:
        """Return means over the trainings, and the spread of the distance."""
        chosen, unseen = ([self.judge(network, seeds) for network in networks] for seeds in (CHOOSING, UNSEEN))
        scores = [found["score"] for found in unseen]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        recall = statistics.mean(found["metrics"]["recall"] for found in unseen)
        return (
            name,
            ", ".join(f"{beta:.3g}" for beta in map(beta_of, networks) if beta),
            f"{statistics.mean(found['score'] for found in chosen):.2f}",
            f"{statistics.mean(scores):.2f}{spread}",
            f"{recall:.2f}",
            f"{statistics.mean(map(seconds_of, networks)):.0f}",
            right_signs(networks),
        )


def beta_of(network: Path) -> float | None:
    """Return the β that a training chose, None if it was given one."""
    if (file := network.with_name(FILE_NAME)).exists():
        return float(json.loads(file.read_text())["beta"])
    file = network.with_name(STATISTICS)
    return read(file)[-1].get("beta") if file.exists() else None


def seconds_of(network: Path) -> float:
    """Return the processor seconds of the training that wrote a network."""
    found: float = json.loads(network.parent.with_name(network.parent.name + ".seconds").read_text())
    return found


def right_signs(networks: Sequence[Path]) -> str:
    """Return the share of log-ratios with the right sign in the last steps, empty if nothing was compared."""
    files = [file for network in networks if (file := network.with_name(STATISTICS)).exists()]
    names = ("accuracies/real", "accuracies/fake")
    shares = [line[name] for file in files for line in read(file)[-LAST:] for name in names if name in line]
    return f"{statistics.mean(shares):.2f}" if shares else ""


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--only", type=click.Choice(list(PROBLEMS)), help="Run one problem.")
def main(out: Path, only: str | None) -> None:
    """Train what is missing in OUT, and print a table for each problem."""
    torch.set_num_threads(1)
    plugins.manager().register(Plugin())
    head = ("network", "chosen β", "distance, choosing seeds", "distance, unseen seeds", "recall", "seconds", "signs")
    for name in [only] if only else PROBLEMS:
        round_ = Round(out.resolve(), name)
        rows = [round_.row("base", [round_.base])]
        for arm in ARMS:
            seeds = round_.problem.seeds if arm not in RULES else round_.problem.seeds[:1]
            rows.append(round_.row(arm, [round_.train(arm, seed) for seed in seeds]))
        print(f"\n{name}\n\n{table(head, rows)}\n", flush=True)


if __name__ == "__main__":
    main()
