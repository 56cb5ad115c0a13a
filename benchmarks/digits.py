"""DDO in a real upstream on scikit-learn's digits: the code that the proofs share.

The unpatched upstream trains a small class-conditional network. The patched training script finetunes it by DDO and, as
a control, by more maximum likelihood, with several training seeds. The unpatched upstream then samples all networks.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import statistics
import sys
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
from PIL import Image

from ddo_integrations.demo.data import Digits
from ddo_plugin.base.commands import Command
from ddo_plugin.base.files import write_json
from ddo_plugin.base.option_types import IntegerList
from ddo_plugin.evaluation.metrics.frechet import feature_moments, frechet_distance
from ddo_plugin.jobs.executor import LocalExecutor
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.jobs.runner import Runner, Task

CONTROL = "--ddo-objective=mle"
FAKES = 4000
SETS, PER_CLASS = 3, 150  # sets of images, and images of each class in a set; random class shares would hide the effect

THREADS = 100  # more than there are networks; commands wait for a core

ports = itertools.count(29600)


class Workshop:
    """Runs the steps of a proof. Each step is a command with an output that is kept, so the proof can be resumed."""

    device: str | None = "cpu"  # the value of DDO_DEVICE; None: whatever this machine has

    def __init__(self, repo: Path, root: Path, cores: int):
        self.repo, self.root = repo, root
        self.runner = Runner(root, Journal(root / FILE_NAME), LocalExecutor(cores, threads_per_command=1))
        self.digits = Digits(self.root / "digits")

    @property
    def path(self) -> Sequence[Path]:
        """The folders from which commands import modules."""
        return [self.repo]

    def run(self, out: Path, *argv: object) -> Path:
        """Run a Python command in the proof's folder and return its output. Each command gets a port of its own."""
        path = os.pathsep.join(map(str, self.path))
        env = {"MASTER_PORT": str(next(ports)), "PYTHONPATH": path}
        if self.device is not None:
            env["DDO_DEVICE"] = self.device
        return self.runner.run(Task(out.name, out, Command([sys.executable, *map(str, argv)], env, self.root)))


class Bench(Workshop, ABC):
    """The base network, rounds of DDO and of the control, and images of each network."""

    upstream: str
    script: str  # upstream's training script
    channels: int  # of the images; the digits are grey, so all channels are equal
    arms: ClassVar[Mapping[str, Sequence[str]]]  # name -> options of each round
    rounds = 3
    sampling: Sequence[str] = ()  # options for sampling reference sets, if not upstream's defaults

    def __init__(self, repo: Path, root: Path, cores: int):
        super().__init__(repo, root, cores)
        self.zip = root / "digits.zip"

    @abstractmethod
    def pretrain(self) -> Path:
        """Train the base network with the unpatched upstream."""

    @abstractmethod
    def images(self, network: Path) -> list[np.ndarray]:
        """Return sets of balanced images, uint8 [N, 1, 8, 8], from the unpatched upstream and always the same seeds."""

    def prepare(self) -> None:
        """Create the digits and the dataset that upstream reads."""
        self.run(self.digits.path, "-m", "ddo_integrations.demo.prepare", f"--out={self.digits.path}")
        self.pack()

    def pack(self) -> None:
        """Create the dataset that upstream reads from the digits."""
        names = [f"{number:06d}.png" for number in range(len(self.digits.images))]
        with zipfile.ZipFile(self.zip, "w") as archive:
            for name, image in zip(names, self.digits.images, strict=True):
                buffer = io.BytesIO()
                pixels = np.repeat(image.transpose(1, 2, 0), self.channels, axis=2)
                Image.fromarray(pixels.squeeze()).save(buffer, "png")
                archive.writestr(name, buffer.getvalue())
            labels = [[name, int(label)] for name, label in zip(names, self.digits.labels, strict=True)]
            archive.writestr("dataset.json", json.dumps({"labels": labels}))

    def finetune(self, arm: str, network: Path, seed: int) -> Iterator[Path]:
        """Run rounds of the patched training script. Each round starts from the snapshot of the round before."""
        for number in range(1, self.rounds + 1):
            options = [*self.arms[arm], f"--seed={seed}"]
            made_from = self.runner.key({"network": network, "options": options})
            out = self.root / f"{arm}-{seed}-{number}-{made_from}"
            flags = [f"--ddo={network}", f"--data={self.zip}", *options, f"--outdir={out}"]
            if CONTROL not in flags:
                flags.append(f"--ddo-fakes={self.reference_set(network, number, seed)}")
            self.run(out, "-m", "ddo_plugin", "run", self.repo, self.script, "--", *flags)
            network = last_snapshot(out)
            yield network

    def reference_set(self, network: Path, number: int, seed: int) -> Path:
        """Create the reference set of a round."""
        own = 1000 * seed + number
        out = network.parent / f"fakes-{own}"
        flags = [f"--network={network}", f"--out={out}", f"--count={FAKES}", f"--seed={own}", *self.sampling]
        return self.run(out, "-m", "ddo_plugin", "refset", "make", *flags)

    def judge(self, network: Path) -> list[float]:
        """Return the Fréchet distance of each set of images."""
        features = self.digits.features
        real = feature_moments(features(self.digits.images))
        return [frechet_distance(feature_moments(features(images)), real) for images in self.images(network)]


def last_snapshot(folder: Path) -> Path:
    """Return the last snapshot in a folder."""
    return max(folder.glob("network-snapshot-*.pkl"))


def first_seed(part: int) -> int:
    """Return the first seed of a set of images."""
    return 1_000_000 * (part + 1)


def command(bench_class: type[Bench], out: str, about: str) -> click.Command:
    """Return the proof as a command with the arguments `CHECKOUT --out DIR`."""

    @click.command(help=about)
    @click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
    @click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        default=out,
        show_default=True,
        help="Folder for all files.",
    )
    @click.option(
        "--cores", type=click.IntRange(min=1), default=2, show_default=True, help="Commands that run at a time."
    )
    @click.option(
        "--seeds",
        type=IntegerList(),
        default="0-2",
        show_default=True,
        help="Training seeds to run. The table holds all seeds that the folder has results of.",
    )
    @click.option("--show", "show_only", is_flag=True, help="Print the table of the folder's results; run nothing.")
    def main(checkout: Path, out: Path, cores: int, seeds: list[int], show_only: bool) -> None:
        if not show_only:
            out.mkdir(parents=True, exist_ok=True)
            prove(bench_class(checkout.resolve(), out.resolve(), cores), seeds)
        show([json.loads(path.read_text()) for path in sorted(out.glob("distances-*.json"))])

    return main


def prove(bench: Bench, seeds: Sequence[int]) -> None:
    """Write the distances of base, control and DDO, by name, to a file for each training seed."""
    bench.prepare()
    base = bench.pretrain()
    with ThreadPoolExecutor(THREADS) as threads:
        of_base = threads.submit(bench.judge, base)
        arms = {
            (arm, seed): threads.submit(judge_rounds, bench, threads, arm, base, seed)
            for seed in seeds
            for arm in bench.arms
        }
        for seed in seeds:
            judged = {"base": of_base.result()}
            for arm in bench.arms:
                rounds = enumerate(arms[arm, seed].result(), 1)
                judged |= {f"{arm}-{number}": distances.result() for number, distances in rounds}
            write_json(bench.root / f"distances-{seed}.json", judged)


def judge_rounds(
    bench: Bench, threads: ThreadPoolExecutor, arm: str, base: Path, seed: int
) -> list[Future[list[float]]]:
    """Run the rounds of an arm. Each network is judged while the next round runs."""
    return [threads.submit(bench.judge, network) for network in bench.finetune(arm, base, seed)]


def show(seeds: Sequence[Mapping[str, Sequence[float]]]) -> None:
    """Print a Markdown table: for each network, mean and standard deviation over the training seeds.

    The distance of a training seed is the mean over its sets of images.
    """
    print(f"| network | Fréchet distance, {len(seeds)} training seeds |\n|---|---|")
    for name in seeds[0] if seeds else ():
        means = [statistics.mean(seed[name]) for seed in seeds]
        spread = f" ± {statistics.stdev(means):.2f}" if len(means) > 1 and name != "base" else ""
        print(f"| {name} | {statistics.mean(means):.2f}{spread} |")
