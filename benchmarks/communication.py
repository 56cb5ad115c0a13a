"""Compute what ranks send each other in a step: `python -m benchmarks.communication RESULTS`.

A step sums the gradients of all ranks, in fp32. In a ring of n ranks, each rank sends 2 (n − 1) / n of their bytes.
RESULTS are those of the GPU kit; the times of its steps on one GPU are measured, all other figures are computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu.report import table

STEPS = ("step", "step, fp16")  # the precision that DDO trains in
BYTES = 4


def sent(parameters: int, ranks: int) -> float:
    """Return the bytes that each rank sends in the ring all-reduce of the gradients of a step."""
    return 2 * (ranks - 1) / ranks * parameters * BYTES


def networks(results: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int, int, float]]:
    """Return name, parameters, batch and milliseconds of DDO's step of each measured network."""
    steps = {row["part"]: row["ms"]["ddo"] for row in results if row["name"] in STEPS and row["ok"]}
    for row in results:
        if row["name"] == "network" and row["part"] in steps:
            name = row["part"].removeprefix("speed ")
            yield name, row["parameters"], row["batch"], steps[row["part"]]


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--ranks", type=click.IntRange(min=2), default=8, show_default=True)
@click.option(
    "--bandwidth",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    default=(300.0, 25.0),
    show_default=True,
    help="GB/s that a rank sends; repeat it for several columns.",
)
def main(results: Path, ranks: int, bandwidth: tuple[float, ...]) -> None:
    """Print the bytes and the time of each network's all-reduce beside its measured step."""
    rows = []
    for name, parameters, batch, step in networks([json.loads(line) for line in results.read_text().splitlines()]):
        total = sent(parameters, ranks)
        times = [total / (speed * 1e9) * 1000 for speed in bandwidth]
        shares = [f"{time:.1f} ms, {time / step:.1%}" for time in times]
        rows.append((name, f"{parameters / 1e6:.0f} M", batch, f"{step:.0f} ms", f"{total / 1e9:.2f} GB", *shares))
    columns = [f"at {speed:g} GB/s, and its share of the step" for speed in bandwidth]
    print(table(("", "parameters", "N", "DDO's step, measured", f"sent by each of {ranks} ranks", *columns), rows))


if __name__ == "__main__":
    main()
