"""Images per second of `ddo refset make` and of pristine generate.py in EDM.

Run as: python -m benchmarks.gpu.speed_refset CHECKOUT FOLDER, where FOLDER holds the files of make_networks.py.
Each command runs with few and with many images, and the difference of the times leaves out the start of the process.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu.measure import ON_CPU
from benchmarks.gpu.results import attempt
from benchmarks.gpu.world import World

FEW, MANY, BATCH, STEPS = (4, 12, 4, 2) if ON_CPU else (128, 640, 128, 18)


class Part:
    """Both ways to sample one EDM network."""

    def __init__(self, checkout: Path, folder: Path):
        self.world = World(checkout, folder / "refset", 29900)
        self.network = folder / "edm.pkl"

    def ours(self, count: int) -> None:
        flags = [f"--network={self.network}", f"--out=set-{count}", f"--count={count}"]
        sampling = [f"--steps={STEPS}", f"--batch={BATCH}", f"--checkout={self.world.checkout}"]
        self.world.python("-m", "ddo_plugin", "refset", "make", *flags, *sampling)

    def theirs(self, count: int) -> None:
        flags = [f"--network={self.network}", f"--outdir=png-{count}", f"--seeds=0-{count - 1}"]
        sampling = [f"--steps={STEPS}", f"--batch={BATCH}"]
        script = Path(__file__).with_name("pristine.py")
        self.world.python(script, "generate", *flags, *sampling, paths=[self.world.checkout])

    def compare(self) -> dict[str, Any]:
        """Return images per second of both."""
        rates = {}
        for name, way in {"ddo refset make": self.ours, "generate.py": self.theirs}.items():
            seconds = []
            for count in (FEW, MANY):
                start = time.perf_counter()
                way(count)
                seconds.append(time.perf_counter() - start)
            rates[name] = {
                "images/s": round((MANY - FEW) / (seconds[1] - seconds[0]), 2),
                "start s": round(seconds[0], 2),
            }
        return {"rates": rates, "steps": STEPS, "batch": BATCH, "python": sys.version.split()[0]}


@click.command()
@click.argument("checkout", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def main(checkout: Path, folder: Path) -> None:
    """Compare both ways to sample."""
    part = Part(checkout.resolve(), folder.resolve())
    attempt("speed refset", "edm", part.compare)


if __name__ == "__main__":
    main()
