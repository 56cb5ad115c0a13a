"""Adaptive search against the whole grid, on the demo's digits: `python -m benchmarks.search [--out DIR]`.

Runs one round over the same 16 pairs of α and β in both ways, with three training seeds. Prints the cost of each way in
processor seconds, and the Fréchet distance of the snapshot that it chose, with sampling seeds that neither way used.
Takes about 50 minutes on two CPU cores. If it is started again, it keeps the runs that were finished.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ddo_plugin.base.files import write_json
from ddo_plugin.jobs import journal
from ddo_plugin.selfplay.steps import COMPARISON, EVALUATION, TRAINING

BASE = "base/network-003000.safetensors"
RECIPE = """
title = "One round over 16 pairs of α and β"
upstream = "digits"
start = "base/network-003000.safetensors"
rounds = 1

[refset]
count = 4000
family = "diffusion"
data = "data"

[training]
family = "diffusion"
data = "data"
steps = 640
batch = 512
lr = 1e-4
warmup = 0.25
ema = 50
snap = 80
ddo-noise = "independent"  # the default when the figures in docs/selfplay.md were made

[sweep]
alpha = [0.5, 1.0, 2.0, 4.0]
beta = [0.03, 0.1, 0.3, 1.0]

[search]
rungs = [1, 3]
seeds = [101]
evaluation = { count = 1000 }

[evaluation]
family = "diffusion"
data = "data"
count = 4000
seeds = [101, 102, 103]

[policy]
keep = "all"

[resources]
slots = 2
threads = 1
"""
SEEDS = (0, 1, 2)
UNSEEN = ",".join(map(str, range(201, 211)))


@dataclass(frozen=True)
class Outcome:
    """The choice of one way to search, its cost, and the number of commands of each kind."""

    network: Path
    setting: str
    seconds: float
    commands: Counter[str]


def run(root: Path, *arguments: str) -> float:
    """Run a Python command and return its processor seconds, including those of its child processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", *arguments], cwd=root, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(root: Path) -> None:
    """Create the digits, and the network that every search starts from."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "recipe.toml").write_text(RECIPE)
    if not (root / BASE).exists():
        run(root, "ddo_integrations.demo.prepare", "--out=data")
        flags = ["--family=diffusion", "--data=data", "--outdir=base", "--steps=3000"]
        run(root, "ddo_integrations.demo.train", *flags, "--lr=1e-3", "--decay=0.5", "--ema=100")


def search(root: Path, kind: str, seed: int) -> Outcome:
    """Run one way to search, unless it was finished before."""
    out = root / f"{kind}-{seed}"
    cost = root / f"{out.name}.json"
    if not cost.exists():
        shutil.rmtree(out, ignore_errors=True)  # a run that was interrupted, so its cost is unknown
        chosen = [f"--set=search.kind={kind}", f"--set=seed={seed}"]
        write_json(cost, run(root, "ddo_plugin", "selfplay", "recipe.toml", f"--out={out.name}", *chosen))
    facts = journal.read(out / journal.FILE_NAME)
    (selected,) = [fact["network"] for fact in facts if fact["fact"] == "selected"]
    candidate = next(f["candidate"] for f in facts if f["fact"] == "evaluated" and f["network"] == selected)
    commands = Counter(fact["kind"] for fact in facts if fact["fact"] == "finished")
    setting = f"α={candidate['alpha']:g} β={candidate['beta']:g} {Path(selected).stem.removeprefix('network-')}"
    return Outcome(out / selected, setting, json.loads(cost.read_text()), commands)


def judge(root: Path, network: Path) -> Sequence[float]:
    """Return Fréchet distances with sampling seeds that no search used."""
    out = network.with_name(f"{network.stem}-unseen.json")
    if not out.exists():
        flags = ["--family=diffusion", "--data=data", f"--network={network}", f"--seeds={UNSEEN}", "--count=2000"]
        run(root, "ddo_integrations.demo.evaluate", *flags, f"--out={out}")
    scores: list[float] = json.loads(out.read_text())["scores"]
    return scores


def mean_and_spread(scores: Sequence[float]) -> str:
    """Return the mean and the standard deviation as text."""
    return f"{statistics.mean(scores):.2f} ± {statistics.stdev(scores):.2f}"


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="search-benchmark",
    show_default=True,
    help="Folder for all files.",
)
def main(out: Path) -> None:
    """Compare the adaptive search with the grid.

    Prints a table. ± is the standard deviation over ten sampling seeds that no search used.
    """
    root = out.resolve()
    prepare(root)
    rows = []
    for seed in SEEDS:
        grid, adaptive = search(root, "grid", seed), search(root, "adaptive", seed)
        best, chosen = judge(root, grid.network), judge(root, adaptive.network)
        misses = (statistics.mean(chosen) - statistics.mean(best)) / statistics.stdev(best)
        cells = [grid.setting, mean_and_spread(best), adaptive.setting, mean_and_spread(chosen), f"{misses:+.1f}"]
        cost = f"{adaptive.seconds:.0f} / {grid.seconds:.0f} s = {adaptive.seconds / grid.seconds:.2f}"
        rows.append(f"| {seed} | {' | '.join(cells)} | {cost} |")
        ran = ", ".join(f"{adaptive.commands[kind]} {kind}s" for kind in (TRAINING, COMPARISON, EVALUATION))
        click.echo(f"seed {seed}: the search ran {ran}", err=True)
    click.echo("| seed | grid's best | FD | search's choice | FD | apart, in spreads | cost |")
    click.echo("|---|---|---|---|---|---|---|")
    click.echo("\n".join(rows))


if __name__ == "__main__":
    main()
