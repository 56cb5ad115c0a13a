"""The digits proof of EDM on a GPU: `python -m benchmarks.gpu.digits_proof CHECKOUT KIT FOLDER`.

It is `benchmarks.digits_edm` with three training seeds, and the digits from the kit. On a CPU it only shows that it
works, with one seed, one round, and a base network of a few seconds.
"""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import ClassVar

import click

from benchmarks.digits import prove
from benchmarks.digits_edm import EDM
from benchmarks.gpu.results import record
from benchmarks.gpu.world import ON_CPU

SEEDS = range(1 if ON_CPU else 3)
SIDE_BY_SIDE = 1 if ON_CPU else 6  # commands; each is too small to fill a GPU


class OnGPU(EDM):
    """EDM on whatever device this machine has."""

    device = None
    rounds = 1 if ON_CPU else 3
    base_kimg = 4 if ON_CPU else 160
    arms: ClassVar = {name: EDM.arms[name] for name in ("mle", "ddo")}

    def prepare(self) -> None:
        """Pack the digits, which are in the folder already: the machine may have no scikit-learn."""
        self.pack()


@click.command()
@click.argument("checkout", type=click.Path(exists=True, path_type=Path))
@click.argument("kit", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(checkout: Path, kit: Path, folder: Path) -> None:
    """Record the Fréchet distance of base, control and DDO, with mean and spread over the training seeds."""
    shutil.copytree(kit / "digits", folder / "digits", dirs_exist_ok=True)
    prove(OnGPU(checkout.resolve(), folder.resolve(), SIDE_BY_SIDE), SEEDS)
    seeds = [json.loads(path.read_text()) for path in sorted(folder.glob("distances-*.json"))]
    for name in seeds[0]:
        means = [statistics.mean(seed[name]) for seed in seeds]
        spread = {"spread": round(statistics.stdev(means), 3)} if len(means) > 1 and name != "base" else {}
        record(
            "digits", name, ok=True, distance=round(statistics.mean(means), 3), seeds=len(seeds), **spread, seconds=0
        )


if __name__ == "__main__":
    main()
