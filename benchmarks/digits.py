"""DDO in a real upstream on scikit-learn's digits: the code that the proofs share.

The unpatched upstream trains a small class-conditional network. The patched training script finetunes it by DDO and, as
a control, by more maximum likelihood. The unpatched upstream then samples all networks.
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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
from PIL import Image

from ddo_integrations.demo.data import Digits
from ddo_plugin.base.commands import Command
from ddo_plugin.base.files import write_json
from ddo_plugin.evaluation.metrics.frechet import feature_moments, frechet_distance
from ddo_plugin.jobs.executor import LocalExecutor
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.jobs.runner import Runner, Task, key

CONTROL = "--ddo-objective=mle"
ROUNDS, FAKES = 3, 4000
SETS, PER_CLASS = 3, 150  # sets of images, and images of each class in a set; random class shares would hide the effect

ports = itertools.count(29600)


class Workshop:
    """Runs the steps of a proof. Each step is a command with an output that is kept, so the proof can be resumed."""

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
        env = {"MASTER_PORT": str(next(ports)), "DDO_DEVICE": "cpu", "PYTHONPATH": path}
        return self.runner.run(Task(out.name, out, Command([sys.executable, *map(str, argv)], env, self.root)))


class Bench(Workshop, ABC):
    """The base network, rounds of DDO and of the control, and images of each network."""

    upstream: str
    script: str  # upstream's training script
    channels: int  # of the images; the digits are grey, so all channels are equal
    arms: ClassVar[Mapping[str, Sequence[str]]]  # name -> options of each round
    sampling: Sequence[str] = ()  # options for sampling reference sets, if not upstream's defaults

    def __init__(self, repo: Path, root: Path, cores: int):
        super().__init__(repo, root, cores)
        self.zip = root / "digits.zip"

    @abstractmethod
    def pretrain(self) -> Path:
        """Train the base network with the unpatched upstream."""

    @abstractmethod
    def images(self, network: Path, part: int) -> np.ndarray:
        """Return balanced images, uint8 [N, 1, 8, 8], from the unpatched upstream; all networks use the same seeds."""

    def prepare(self) -> None:
        """Create the digits and the dataset that upstream reads."""
        self.run(self.digits.path, "-m", "ddo_integrations.demo.prepare", f"--out={self.digits.path}")
        names = [f"{number:06d}.png" for number in range(len(self.digits.images))]
        with zipfile.ZipFile(self.zip, "w") as archive:
            for name, image in zip(names, self.digits.images, strict=True):
                buffer = io.BytesIO()
                pixels = np.repeat(image.transpose(1, 2, 0), self.channels, axis=2)
                Image.fromarray(pixels.squeeze()).save(buffer, "png")
                archive.writestr(name, buffer.getvalue())
            labels = [[name, int(label)] for name, label in zip(names, self.digits.labels, strict=True)]
            archive.writestr("dataset.json", json.dumps({"labels": labels}))

    def finetune(self, arm: str, base: Path) -> list[Path]:
        """Run rounds of the patched training script. Each round starts from the snapshot of the round before."""
        networks = [base]
        for number in range(1, ROUNDS + 1):
            flags = [f"--ddo={networks[-1]}", f"--data={self.zip}", *self.arms[arm]]
            if CONTROL not in flags:
                flags.append(f"--ddo-fakes={self.reference_set(networks[-1], number)}")
            out = self.root / f"{arm}-{number}-{key({'flags': flags})}"
            self.run(out, "-m", "ddo_plugin", "run", self.repo, self.script, "--", *flags, f"--outdir={out}")
            networks.append(last_snapshot(out))
        return networks[1:]

    def reference_set(self, network: Path, number: int) -> Path:
        """Create the reference set of a round."""
        out = network.parent / f"fakes-{number}"
        flags = [f"--network={network}", f"--out={out}", f"--count={FAKES}", f"--seed={number}", *self.sampling]
        return self.run(out, "-m", "ddo_plugin", "refset", "make", *flags)

    def judge(self, network: Path) -> list[float]:
        """Return the Fréchet distance of each set of images."""
        features = self.digits.features
        real = feature_moments(features(self.digits.images))
        return [frechet_distance(feature_moments(features(self.images(network, part))), real) for part in range(SETS)]


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
    def main(checkout: Path, out: Path, cores: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        show(prove(bench_class(checkout.resolve(), out.resolve(), cores)))

    return main


def prove(bench: Bench) -> dict[str, list[float]]:
    """Return the distances of base, control and DDO by name, and write them to distances.json."""
    bench.prepare()
    base = bench.pretrain()
    with ThreadPoolExecutor() as threads:
        arms = {arm: threads.submit(bench.finetune, arm, base) for arm in bench.arms}
        networks = {"base": base}
        for arm, rounds in arms.items():
            networks |= {f"{arm}-{number}": network for number, network in enumerate(rounds.result(), 1)}
        judged = dict(zip(networks, threads.map(bench.judge, networks.values()), strict=True))
    write_json(bench.root / "distances.json", judged)
    return judged


def show(judged: dict[str, list[float]]) -> None:
    """Print the distances as a Markdown table."""
    print("| network | Fréchet distance |\n|---|---|")
    for name, distances in judged.items():
        print(f"| {name} | {statistics.mean(distances):.2f} ± {statistics.stdev(distances):.2f} |")
