"""The cost of a patch that is not used, on a CPU.

`DDO_DEVICE=cpu OMP_NUM_THREADS=1 python -m benchmarks.unused UPSTREAM CHECKOUT`. Upstream's training script runs
without --ddo, in a pristine checkout and in a patched one. Both have the fixes that they need on a CPU.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.gpu import correct_diffusion, correct_var
from benchmarks.gpu.measure import ON_CPU
from benchmarks.gpu.world import ROOT, World, end_running, write_folders, write_zip
from ddo_plugin.base.environment import free_port

TIMED, COUNTED = 100, 10  # steps of a run
TINY_EDM = ("--arch=ddpmpp", "--cbase=8", "--cres=1", "--augment=0.1")
FLAGS = {  # of more steps than are measured
    "edm": ("--data=data.zip", *correct_diffusion.KINDS["edm"].flags, *TINY_EDM, "--tick=50", "--duration=0.004"),
    "edm2": (
        *("--data=data.zip", *correct_diffusion.KINDS["edm2"].flags, "--batch=32"),
        *("--status=4096", "--snapshot=4096", "--checkpoint=4096", "--duration=4096"),
    ),
    "var": correct_var.FLAGS,
}
NAMES = ("pristine", "patched")


class Steps(NamedTuple):
    """What a step of a run costs: the median of each."""

    seconds: float
    calls: float


class Ratio(NamedTuple):
    """Patched over pristine, from pairs of runs: the mean, and twice its standard error."""

    mean: float
    error: float


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Return the ratio of the second value of the pairs to the first."""
    ratios = [patched / pristine for pristine, patched in pairs]
    return Ratio(statistics.mean(ratios), 2 * statistics.stdev(ratios) / math.sqrt(len(ratios)))


class Unused:
    """Runs of upstream's training script in both checkouts."""

    def __init__(self, upstream: str, checkout: Path, folder: Path):
        self.upstream, self.numbers = upstream, itertools.count()
        self.world = World(checkout, folder, free_port())
        self.repos = {name: folder / name for name in NAMES}
        for repo in self.repos.values():
            subprocess.run(["git", "clone", "--quiet", checkout, repo], check=True)
        self.world.python("-m", "ddo_plugin", "apply", self.repos["patched"])
        if upstream == "var":
            correct_var.Part(checkout, folder).prepare()
            write_folders(folder / "images/train", 480)  # one epoch has 120 steps
        else:
            write_zip(folder / "data.zip", correct_diffusion.KINDS[upstream].channels)

    def script(self, name: str) -> Path:
        """Return the training script; no preset of EDM2 is small enough."""
        tiny = ROOT / "tests/upstream/train_tiny_edm2.py"
        return tiny if self.upstream == "edm2" else self.repos[name] / "train.py"

    def start(self, name: str) -> float:
        """Return the CPU seconds from the start of the script to its list of options; only the patch loads DDO."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.run(name, self.script(name), "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def steps(self, name: str, pipes: Mapping[str, Path]) -> Steps:
        """Train, and return what a step costs. The runs in both checkouts take turns through these pipes."""
        run = self.world.root / f"run-{next(self.numbers)}"
        out = f"--{'local_out_dir_path' if self.upstream == 'var' else 'outdir'}={run}"
        found = run.with_suffix(".json")
        [theirs] = [pipe for other, pipe in pipes.items() if other != name]
        measured = [ROOT / "benchmarks/in_checkout/steps.py", found, TIMED, COUNTED, pipes[name], theirs]
        self.run(name, *measured, self.script(name), *FLAGS[self.upstream], out)
        read = json.loads(found.read_text())
        return Steps(statistics.median(read["seconds"]), statistics.median(read["calls"]))

    def run(self, name: str, *arguments: object) -> None:
        """Run a Python command in a checkout. Python's hashes are fixed, so that sets have the same order."""
        repo = self.repos[name]
        paths = [repo, *([correct_var.TESTS / "stand_ins"] if self.upstream == "var" else [])]
        git = str(repo / ".git")  # VAR's script asks git for its branch
        settings = {"GIT_DIR": git, "PYTHONHASHSEED": "0", "MASTER_PORT": str(free_port())}
        self.world.python(*arguments, paths=paths, **settings)

    def pairs(self, runs: int) -> list[dict[str, Steps]]:
        """Return the steps of pairs of runs."""
        return [self.pair() for _ in range(runs)]

    def pair(self) -> dict[str, Steps]:
        """Train in both checkouts. The runs take turns after each step, so that other programs slow down both."""
        pipes = {name: self.world.root / f"pipe-{name}-{next(self.numbers)}" for name in NAMES}
        for pipe in pipes.values():
            os.mkfifo(pipe)
        token = os.open(pipes["pristine"], os.O_RDWR)
        os.write(token, b".")
        with ThreadPoolExecutor(len(NAMES)) as pool:
            runs = {name: pool.submit(self.steps, name, pipes) for name in NAMES}
            for run in as_completed(runs.values()):
                if run.exception():
                    end_running()  # the other run would wait for its turn
                    run.result()
        os.close(token)
        return {name: run.result() for name, run in runs.items()}

    def starts(self, runs: int) -> list[dict[str, float]]:
        """Return the seconds of pairs of starts; the first pair, which compiles Python's files, does not count."""
        return [{name: self.start(name) for name in NAMES} for _ in range(runs + 1)][1:]


def compared(pairs: Sequence[dict[str, Steps]]) -> tuple[Ratio, Ratio]:
    """Return the ratios of CPU seconds and of calls of a step."""
    both = [(pair["pristine"], pair["patched"]) for pair in pairs]
    seconds = ratio([(pristine.seconds, patched.seconds) for pristine, patched in both])
    return seconds, ratio([(pristine.calls, patched.calls) for pristine, patched in both])


@click.command()
@click.argument("upstream", type=click.Choice(list(FLAGS)))
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--runs", type=click.IntRange(min=2), default=10, show_default=True, help="Pairs of runs to compare.")
def main(upstream: str, checkout: Path, runs: int) -> None:
    """Print the cost of a step and of a start, without --ddo, in both checkouts."""
    if not ON_CPU:
        raise click.UsageError("this benchmark is for a CPU; set DDO_DEVICE=cpu")
    os.environ.setdefault("MASTER_PORT", str(free_port()))
    with tempfile.TemporaryDirectory() as folder:
        unused = Unused(upstream, checkout.resolve(), Path(folder))
        pairs = unused.pairs(runs)
        seconds, calls = compared(pairs)
        print(f"\n| {upstream}, without --ddo | pristine | patched | ratio |\n|---|---|---|---|")
        medians = {name: [1000 * pair[name].seconds for pair in pairs] for name in NAMES}
        row = " | ".join(f"{statistics.median(medians[name]):.2f} ms" for name in NAMES)
        print(f"| CPU time of a step | {row} | {seconds.mean:.4f} ± {seconds.error:.4f} |")
        row = " | ".join(f"{statistics.median(pair[name].calls for pair in pairs):.0f}" for name in NAMES)
        print(f"| function calls of a step | {row} | {calls.mean:.4f} ± {calls.error:.4f} |", flush=True)
        if upstream != "var":  # its --help fails
            starts = unused.starts(runs)
            row = " | ".join(f"{statistics.median(start[name] for start in starts):.2f} s" for name in NAMES)
            ended = ratio([(start["pristine"], start["patched"]) for start in starts])
            print(f"| CPU time of the start | {row} | {ended.mean:.3f} ± {ended.error:.3f} |")


if __name__ == "__main__":
    main()
