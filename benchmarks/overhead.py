"""Python's overhead of a DDO step, and the cost of a patch that is not used, on a CPU.

`DDO_DEVICE=cpu OMP_NUM_THREADS=1 python -m benchmarks.overhead UPSTREAM CHECKOUT`. The networks are so small that
Python takes most of the time. The unit is CPU time, which other programs hardly affect.
"""

from __future__ import annotations

import importlib
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch

from benchmarks.cpu_time import medians
from benchmarks.gpu import correct_diffusion, correct_var, make_networks
from benchmarks.gpu.measure import ON_CPU
from benchmarks.gpu.speed_diffusion import Bench
from benchmarks.gpu.world import ROOT, World, write_zip
from ddo_plugin.base.environment import free_port
from ddo_plugin.checkouts import compat

BATCH = 4  # real images of a step
NAMES = {"edm": "edm", "edm2": "edm2-s"}  # as the GPU kit calls the networks
TINY = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1}
TINY_EDM = ["--arch=ddpmpp", "--cbase=8", "--cres=1", "--augment=0.1"]


def write_network(upstream: str, folder: Path) -> None:
    """Write a network of one block at 8×8."""
    dataset = {"class_name": "training.dataset.ImageFolderDataset", "path": "data.zip"}
    rest: dict[str, Any]
    if upstream == "edm":
        from training.loss import EDMLoss
        from training.networks import EDMPrecond

        net = EDMPrecond(8, 3, label_dim=10, **make_networks.SONG | TINY)
        rest = {"loss_fn": EDMLoss(), "augment_pipe": None}
    else:
        from training.encoders import StandardRGBEncoder
        from training.networks_edm2 import Precond
        from training.training_loop import EDM2Loss

        net = Precond(8, 3, label_dim=10, **TINY)
        rest = {"loss_fn": EDM2Loss(), "encoder": StandardRGBEncoder()}
    ema = net.eval().requires_grad_(False)
    make_networks.save(folder / f"{NAMES[upstream]}.pkl", ema=ema, dataset_kwargs=dataset, **rest)


def step(upstream: str, folder: Path, repeats: int) -> dict[str, float]:
    """Return by how many milliseconds DDO's step on N + N is longer than its parts, and where they go."""
    write_network(upstream, folder)
    bench = Bench(NAMES[upstream], folder)
    bench.set_batch(BATCH)

    def loss(loss_fn: Callable[..., Any], count: int) -> None:
        loss_fn(net=bench.ddp, images=bench.images[:count], labels=bench.labels[:count])

    measured = medians(
        {
            "step": bench.ddo_step,
            "step, MLE on 2N": bench.mle_step,
            "loss": lambda: loss(bench.ddo_loss, BATCH),
            "loss, MLE on 2N": lambda: loss(bench.mle_loss, 2 * BATCH),
            "reference on 2N": bench.reference_forward,
        },
        repeats,
    )
    spent = parts(upstream, bench, lambda: loss(bench.ddo_loss, BATCH), repeats)
    milliseconds = {name: 1000 * seconds for name, seconds in (measured | spent).items()}
    for whole in ("step", "loss"):
        bound = milliseconds[f"{whole}, MLE on 2N"] + milliseconds["reference on 2N"]
        milliseconds[f"overhead of the {whole}"] = milliseconds[whole] - bound
    return milliseconds


def parts(upstream: str, bench: Bench, loss: Callable[[], None], repeats: int) -> dict[str, float]:
    """Return the median seconds that a call of the loss spends in the functions that upstream's loss does not call."""
    module, session = importlib.import_module(f"ddo_integrations.{upstream}.loss"), bench.session
    functions = {
        "fakes": (module, "with_fakes"),
        "judge": (session, "judge"),
        "objective": (session, "objective"),
        "upstream's statistics": (module.training_stats, "report"),
    }
    seconds = {name: [0.0] for name in functions}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name][-1] += time.process_time() - start

        return call

    patches = [mock.patch.object(*at, timed(name, getattr(*at))) for name, at in functions.items()]
    for patch in patches:
        patch.start()
    for _ in range(repeats):
        loss()
        for values in seconds.values():
            values.append(0.0)
    for patch in patches:
        patch.stop()
    median = {name: statistics.median(values[:-1]) for name, values in seconds.items()}
    median["our statistics and hooks"] = median.pop("judge") - median["objective"]
    return median


class Unused:
    """Short runs of upstream's training script without --ddo, in a pristine checkout and in a patched one."""

    def __init__(self, upstream: str, checkout: Path, folder: Path):
        self.upstream, self.numbers = upstream, itertools.count()
        self.world = World(checkout, folder, free_port())
        self.repos = {name: folder / name for name in ("pristine", "patched")}
        for repo in self.repos.values():
            subprocess.run(["git", "clone", "--quiet", checkout, repo], check=True)
        self.world.python("-m", "ddo_plugin", "apply", self.repos["patched"])
        if upstream == "var":
            correct_var.Part(checkout, folder).prepare()
        else:
            write_zip(folder / "data.zip", correct_diffusion.KINDS[upstream].channels)

    def script(self, repo: Path) -> Path:
        tiny = ROOT / "tests/upstream/train_tiny_edm2.py"  # no preset of EDM2 is small enough
        return tiny if self.upstream == "edm2" else repo / "train.py"

    def flags(self) -> Sequence[str]:
        out = f"run-{next(self.numbers)}"
        if self.upstream == "var":
            return [*correct_var.FLAGS, f"--local_out_dir_path={out}"]
        own = ["--duration=2048"] if self.upstream == "edm2" else [*TINY_EDM, "--duration=0.002"]
        return ["--data=data.zip", *correct_diffusion.KINDS[self.upstream].flags, *own, f"--outdir={out}"]

    def train(self, name: str) -> float:
        """Return the CPU seconds of a run. Both checkouts have the fixes that they need on a CPU."""
        return self.seconds(name, "-m", "ddo_plugin.checkouts.compat", self.script(self.repos[name]), *self.flags())

    def show_help(self, name: str) -> float:
        """Return the CPU seconds from the start of the script to its list of options; only the patch loads DDO."""
        return self.seconds(name, self.script(self.repos[name]), "--help")

    def seconds(self, name: str, *arguments: object) -> float:
        repo, before = self.repos[name], resource.getrusage(resource.RUSAGE_CHILDREN)
        paths = [repo, *([correct_var.TESTS / "stand_ins"] if self.upstream == "var" else [])]
        self.world.python(*arguments, paths=paths, GIT_DIR=str(repo / ".git"))  # VAR's script asks git for its branch
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def compare(self, runs: int) -> Iterator[tuple[str, float, float]]:
        """Return the median of each task in both checkouts. They take turns, and the first turn does not count."""
        tasks = {"start": self.show_help, "whole run": self.train}
        if self.upstream == "var":  # its --help fails
            del tasks["start"]
        for task, measure in tasks.items():
            seconds: dict[str, list[float]] = {name: [] for name in self.repos}
            for turn in range(runs + 1):
                for name in sorted(self.repos, reverse=turn % 2 == 0):  # the order alternates
                    seconds[name].append(measure(name))
            pristine, patched = (statistics.median(seconds[name][1:]) for name in ("pristine", "patched"))
            yield task, pristine, patched


@click.command()
@click.argument("upstream", type=click.Choice(["edm", "edm2", "var"]))
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--repeats", type=click.IntRange(min=1), default=300, show_default=True, help="Steps to measure.")
@click.option("--runs", type=click.IntRange(min=1), default=6, show_default=True, help="Runs of the training script.")
def main(upstream: str, checkout: Path, repeats: int, runs: int) -> None:
    """Print the overhead of a DDO step in milliseconds, and the cost of a patch without --ddo.

    The overhead of VAR's step is not measured here; `benchmarks.var_step` compares whole steps of VAR.
    """
    if not ON_CPU:
        raise click.UsageError("this benchmark is for a CPU; set DDO_DEVICE=cpu")
    os.environ.setdefault("MASTER_PORT", str(free_port()))
    checkout = checkout.resolve()
    sys.path.insert(0, str(checkout))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if upstream != "var":
            compat.apply()
            torch.manual_seed(0)
            print(f"\n| {upstream}, {BATCH} real images and {BATCH} fakes | CPU ms |\n|---|---|")
            for name, milliseconds in step(upstream, folder, repeats).items():
                print(f"| {name} | {milliseconds:.2f} |")
        print(f"\n| {upstream}, without --ddo | pristine, CPU s | patched, CPU s | ratio |\n|---|---|---|---|")
        for task, pristine, patched in Unused(upstream, checkout, folder / "runs").compare(runs):
            print(f"| {task} | {pristine:.2f} | {patched:.2f} | {patched / pristine:.3f} |", flush=True)


if __name__ == "__main__":
    main()
