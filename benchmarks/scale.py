"""DDO's step against the batch, the size of the network, and the number of ranks, on a CPU.

`DDO_DEVICE=cpu OMP_NUM_THREADS=1 python -m benchmarks.scale UPSTREAM CHECKOUT --out FILE`. Each point compares DDO's
step with the sum of its parts: upstream's maximum-likelihood step and the reference's forward on real images and fakes
and, in VAR, sampling of the fakes. `python -m benchmarks.scale_report` makes tables and a figure of the points.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.cpu_time import Cost, costs, keep_freed_memory
from benchmarks.gpu import make_networks, session, speed_diffusion, speed_var
from benchmarks.gpu.measure import ON_CPU, Way
from benchmarks.overhead import NAMES, write_network
from ddo_plugin.base.environment import free_port
from ddo_plugin.checkouts import compat

SIDE = 16  # pixels of EDM's and EDM2's images
VAR_SIDES, VAE_WIDTH = (1, 2, 3, 4, 5, 6, 8), 32  # 155 tokens
RANKS = (1, 2, 4)


@dataclass(frozen=True)
class Grid:
    """The sizes and batches to measure. Batches are measured at the third size, sizes at the third batch."""

    sizes: Sequence[int]  # channels of EDM and EDM2, blocks of VAR
    batches: Sequence[int]  # real images of a step

    @property
    def size(self) -> int:
        """The size of the network for all batches and numbers of ranks."""
        return self.sizes[2]

    @property
    def batch(self) -> int:
        """The batch for all sizes and, on each rank, all numbers of ranks."""
        return self.batches[2]


GRIDS = {
    "edm": Grid(sizes=(16, 32, 64, 128), batches=(2, 4, 8, 16)),
    "edm2": Grid(sizes=(16, 32, 64, 128), batches=(2, 4, 8, 16)),
    "var": Grid(sizes=(1, 2, 3, 4), batches=(2, 4, 8, 16)),
}


def prepare(upstream: str, checkout: Path) -> None:
    """Make upstream's modules importable in this process."""
    if not ON_CPU:
        raise click.UsageError("this benchmark is for a CPU; set DDO_DEVICE=cpu")
    os.environ.setdefault("MASTER_PORT", str(free_port()))
    sys.path.insert(0, str(checkout.resolve()))
    keep_freed_memory()
    compat.apply()
    torch.manual_seed(0)


def build(upstream: str, size: int, folder: Path) -> Any:
    """Write a network with random weights, and return the trainers of the GPU kit for it."""
    folder.mkdir()
    if upstream != "var":
        write_network(upstream, folder, SIDE, size)
        return speed_diffusion.Bench(NAMES[upstream], folder)
    with contextlib.redirect_stdout(io.StringIO()):  # upstream prints a description of each network
        make_networks.var(folder, [size], VAR_SIDES, VAE_WIDTH)
        bench = speed_var.Bench(size, folder, VAR_SIDES, VAE_WIDTH)
    bench.set_precision("fp32")
    return bench


@contextlib.contextmanager
def ways(bench: Any) -> Iterator[dict[str, Way]]:
    """Return DDO's step and its parts."""
    if isinstance(bench, speed_diffusion.Bench):
        yield {"ddo": bench.ddo_step, "mle": bench.mle_step, "reference": bench.reference_forward}
        return
    with bench.without_tokenizer():
        yield {
            "ddo": bench.ddo_step,
            "mle": bench.mle_step,
            "reference": lambda: bench.reference_forward(bench.both),
            "sampling": partial(bench.sampler, "default"),
        }


def measure(bench: Any, batch: int, repeats: int) -> dict[str, Cost]:
    """Return the costs of DDO's step and of its parts with N real images."""
    bench.set_batch(batch)
    with ways(bench) as found:
        return costs(found, repeats)


def ratio(measured: Mapping[str, Cost]) -> float:
    """Return the CPU time of DDO's step, divided by that of its parts."""
    return measured["ddo"].cpu / sum(cost.cpu for name, cost in measured.items() if name != "ddo")


def point(bench: Any, axis: str, value: int, batch: int, measured: Mapping[str, Cost]) -> dict[str, Any]:
    """Return a line of the results."""
    network = bench.net if isinstance(bench, speed_diffusion.Bench) else bench.var
    return {
        "axis": axis,
        "value": value,
        "batch": batch,
        "parameters": session.parameters(network),
        "cpu ms": {name: round(1000 * cost.cpu, 2) for name, cost in measured.items()},
        "wall ms": {name: round(1000 * cost.wall, 2) for name, cost in measured.items()},
        "ratio": round(ratio(measured), 4),
    }


def curves(upstream: str, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """Measure all sizes, and all batches with one of them, in this process."""
    grid = GRIDS[upstream]
    for size in grid.sizes:
        bench = build(upstream, size, folder / f"size-{size}")
        yield point(bench, "size", size, grid.batch, measure(bench, grid.batch, repeats))
        if size == grid.size:
            for batch in grid.batches:
                yield point(bench, "batch", batch, batch, measure(bench, batch, repeats))


def in_ranks(upstream: str, checkout: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """Measure one size and batch in processes that torchrun starts and gloo joins."""
    for ranks in RANKS:
        torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", f"--master_port={free_port()}"]
        one = ["-m", "benchmarks.scale_rank", upstream, str(checkout), f"--repeats={repeats}"]
        done = subprocess.run([sys.executable, *torchrun, *one], stdout=subprocess.PIPE, text=True, check=True)
        yield json.loads(done.stdout.splitlines()[-1])


@click.command()
@click.argument("upstream", type=click.Choice(list(GRIDS)))
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Append JSON lines to it.")
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Steps to measure.")
def main(upstream: str, checkout: Path, out: Path, repeats: int) -> None:
    """Measure DDO's step against the batch, the size of the network, and the number of ranks."""
    prepare(upstream, checkout)
    with tempfile.TemporaryDirectory() as folder, out.open("a") as file:
        for points in (curves(upstream, Path(folder), repeats), in_ranks(upstream, checkout, repeats)):
            for found in points:
                line = json.dumps({"upstream": upstream, **found}, ensure_ascii=False)
                print(line, file=file, flush=True)
                print(line, flush=True)


if __name__ == "__main__":
    main()
