"""DDO in the real EDM, on a CPU: `python -m benchmarks.digits_edm CHECKOUT --out DIR`.

Pristine EDM trains a small class-conditional network on scikit-learn's digits; patched train.py finetunes it by DDO
and, as the control, by more maximum likelihood; pristine generate.py samples all three. Half an hour on two cores;
started again, it goes on where it stopped.
"""

from __future__ import annotations

import io
import itertools
import json
import statistics
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from PIL import Image

from ddo_plugin.demo.data import CLASSES, Digits
from ddo_plugin.files import write_json
from ddo_plugin.metrics.frechet import frechet_distance, moments
from ddo_plugin.records import Command
from ddo_plugin.selfplay.executor import LocalExecutor
from ddo_plugin.selfplay.journal import FILE_NAME, Journal
from ddo_plugin.selfplay.tasks import Runner, Task, key

NETWORK = ["--arch=ddpmpp", "--cbase=16", "--cres=1,2", "--augment=0"]
COMMON = ["--cond=1", "--batch=64", "--tick=4", "--dump=1000", "--seed=0", "--nosubdir"]
BASE_KIMG, ROUND_KIMG, ROUNDS = 160, 16, 3
# Upstream's learning rate rises over 10 Mimg, whatever the duration: 0.06 is an effective 1e-3 at 160 kimg.
BASE = ["--lr=0.06", "--ema=0.01", "--snap=10"]
ROUND = ["--lr=1e-4", "--ddo-rampup=0.004", "--ema=0.004", "--augment=0", "--snap=100"]
DDO = ["--ddo-alpha=2", "--ddo-beta=1"]
FAKES = 4000
SETS, PER_CLASS = 3, 150  # of generate.py's images. It draws classes at random; their shares would drown the effect.

ports = itertools.count(29600)


class Bench:
    """The steps, each a command whose output is kept."""

    def __init__(self, repo: Path, root: Path, cores: int):
        self.repo, self.root = repo, root
        self.runner = Runner(root, Journal(root / FILE_NAME), LocalExecutor(cores, threads_per_command=1))
        self.data = self.root / "digits"
        self.zip = self.root / "digits.zip"

    def run(self, out: Path, *argv: object) -> Path:
        """A Python command; every process group needs a port of its own."""
        env = {"MASTER_PORT": str(next(ports)), "DDO_DEVICE": "cpu", "PYTHONPATH": str(self.repo)}
        return self.runner.run(Task(out.name, out, Command([sys.executable, *map(str, argv)], env)))

    def prepare(self) -> None:
        self.run(self.data, "-m", "ddo_plugin.demo.data", f"--out={self.data}")
        digits = Digits(self.data)
        names = [f"{number:06d}.png" for number in range(len(digits.images))]
        with zipfile.ZipFile(self.zip, "w") as archive:
            for name, image in zip(names, digits.images, strict=True):
                buffer = io.BytesIO()
                Image.fromarray(image[0]).save(buffer, "png")
                archive.writestr(name, buffer.getvalue())
            labels = [[name, int(label)] for name, label in zip(names, digits.labels, strict=True)]
            archive.writestr("dataset.json", json.dumps({"labels": labels}))

    def pretrain(self) -> Path:
        """Pristine train.py."""
        out = self.root / "base"
        flags = [*NETWORK, *COMMON, *BASE, f"--data={self.zip}", f"--outdir={out}", f"--duration={BASE_KIMG / 1000}"]
        self.run(out, "-m", "ddo_plugin.compat", self.repo / "train.py", *flags)
        return last_snapshot(out)

    def finetune(self, arm: str, base: Path) -> list[Path]:
        """Rounds of patched train.py; each starts from the last."""
        networks = [base]
        for number in range(1, ROUNDS + 1):
            flags = [f"--ddo={networks[-1]}", *ROUND, *COMMON, f"--duration={ROUND_KIMG / 1000}", f"--data={self.zip}"]
            if arm == "mle":
                flags.append("--ddo-objective=mle")
            else:
                fakes = networks[-1].parent / f"fakes-{number}"
                sampling = [f"--network={networks[-1]}", f"--out={fakes}", f"--count={FAKES}", f"--seed={number}"]
                self.run(fakes, "-m", "ddo_plugin", "refset", "make", *sampling)
                flags += [f"--ddo-fakes={fakes}", *DDO]
            out = self.root / f"{arm}-{number}-{key({'flags': flags})}"
            self.run(out, "-m", "ddo_plugin", "run", self.repo, "train.py", "--", *flags, f"--outdir={out}")
            networks.append(last_snapshot(out))
        return networks[1:]

    def judge(self, network: Path) -> list[float]:
        """Distances of pristine generate.py's images, one a set; the same seeds for every network."""
        digits = Digits(self.data)
        real = moments(digits.features(digits.images))
        return [frechet_distance(moments(digits.features(self.images(network, part))), real) for part in range(SETS)]

    def images(self, network: Path, part: int) -> np.ndarray:
        """uint8 [N, 1, 8, 8], as many of each class."""
        pixels = []
        for number in range(CLASSES):
            first = 1_000_000 * (part + 1) + 1000 * number
            out = network.parent / f"images-{part}-{number}"
            flags = [f"--network={network}", f"--outdir={out}", f"--seeds={first}-{first + PER_CLASS - 1}"]
            own = [f"--class={number}", f"--batch={PER_CLASS}"]
            self.run(out, "-m", "ddo_plugin.compat", self.repo / "generate.py", *flags, *own)
            pixels += [np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))]
        return np.stack(pixels)[:, None]


def last_snapshot(folder: Path) -> Path:
    return max(folder.glob("network-snapshot-*.pkl"))


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="digits-edm", show_default=True)
@click.option("--cores", type=click.IntRange(min=1), default=2, show_default=True)
def main(checkout: Path, out: Path, cores: int) -> None:
    """Base, control and DDO in the real EDM, by Fréchet distance."""
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(checkout.resolve(), out.resolve(), cores)
    bench.prepare()
    base = bench.pretrain()
    with ThreadPoolExecutor() as threads:
        arms = {arm: threads.submit(bench.finetune, arm, base) for arm in ("mle", "ddo")}
        networks = {"base": base}
        for arm, rounds in arms.items():
            networks |= {f"{arm}-{number}": network for number, network in enumerate(rounds.result(), 1)}
        judged = dict(zip(networks, threads.map(bench.judge, networks.values()), strict=True))
    write_json(out / "distances.json", judged)
    print("| network | Fréchet distance |\n|---|---|")
    for name, distances in judged.items():
        print(f"| {name} | {statistics.mean(distances):.2f} ± {statistics.stdev(distances):.2f} |")


if __name__ == "__main__":
    main()
