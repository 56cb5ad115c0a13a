"""What share of a GPU's peak the steps reach, and how well their memory is predicted, for `ddo plan`.

`python -m benchmarks.gpu.shares benchmarks/gpu/measured/nvidia-h200.jsonl` reads results of the GPU kit. Operations and
memory come from `recipes/networks.json`, which `python -m benchmarks.networks` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu.report import table
from ddo_plugin.hooks.types import NetworkCount
from ddo_plugin.selfplay.forecast.devices import DEVICES, GIB, TERA
from ddo_plugin.selfplay.recipe.shipped import published_counts

FILES = {
    "speed edm": "edm-cifar10-32x32-cond-vp.pkl",
    "speed edm2-s": "edm2-img64-s-1073741-0.075.pkl",
    "speed edm2-l": "edm2-img512-l-1879048-0.085.pkl",
    "speed var-d16": "var_d16.pth",
    "speed var-d30": "var_d30.pth",
}
EVALUATIONS = 35  # of EDM's network for an image of the reference set, with 18 steps
# Copies of the weights in fp32: network, gradients, Adam's moments, reference; EDM and EDM2 also have the buckets of
# DistributedDataParallel. The benchmark keeps no EMA, and runs VAR on one process.
COPIES = {"edm": 6, "var": 5}
Row = tuple[str, str, float, str]  # network, step, operations per second, precision


def rows(results: list[dict[str, Any]]) -> Iterator[Row]:
    """Yield the operations per second of everything that was timed."""
    sizes = {row["part"]: row["batch"] for row in results if row["name"] == "network"}
    for row in results:
        for script, rate in row.get("rates", {}).items():
            operations = EVALUATIONS * _count(f"speed {row['name']}").forward
            yield row["name"], script, operations * rate["images/s"], "tf32"
        if row["part"] not in sizes or "ms" not in row:
            continue
        batch = row.get("batch", sizes[row["part"]])
        for name, operations, precision in _steps(row, batch, _count(row["part"])):
            yield row["part"], f"{row['name']}: {name}", operations / row["ms"][name] * 1e3, precision


def _steps(row: Mapping[str, Any], batch: int, count: NetworkCount) -> Iterator[tuple[str, float, str]]:
    """Yield the name of each timed step of a network, its operations and its precision."""
    if "edm" in row["part"]:
        precision = "tf32" if "TF32" in row["name"] else "fp32"
        yield "ddo", 8 * batch * count.forward, precision
        yield "mle on 2N", 6 * batch * count.forward, precision
    elif row["name"] == "tokenizer":
        yield "encode N", batch * count.others["encoding"], "tf32"
        yield "decode M", batch // 2 * count.others["decoding"], "tf32"
    elif row["name"].startswith("step"):
        precision = "tf32" if "fp32" in row["name"] else "half"
        yield "mle on N+M", 3 * 1.5 * batch * count.forward, precision
        yield "sampling M", batch // 2 * count.others["drawing"], "tf32"
        yield "sampling M, amp", batch // 2 * count.others["drawing"], precision


def memory(results: list[dict[str, Any]]) -> Iterator[tuple[str, float, float]]:
    """Yield the network, and the measured and the predicted peak of a step in GiB."""
    sizes = {row["part"]: row["batch"] for row in results if row["name"] == "network"}
    for row in results:
        if row["part"] in FILES and "peak GiB" in row:
            count, samples = _count(row["part"]), (2 if "edm" in row["part"] else 1.5) * sizes[row["part"]]
            copies = COPIES["edm" if "edm" in row["part"] else "var"]
            predicted = 4 * copies * count.parameters + count.kept_once + samples * count.kept
            yield row["part"], row["peak GiB"]["ddo"], predicted / GIB


def _count(part: str) -> NetworkCount:
    count = published_counts(FILES[part])
    assert count is not None, "python -m benchmarks.networks writes it"
    return count


@click.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
@click.option("--gpu", type=click.Choice(list(DEVICES)), default="H200", show_default=True, help="GPU that was used.")
def main(results: Path, gpu: str) -> None:
    """Print the shares of the peak and the memory."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    peaks = DEVICES[gpu].peaks
    speeds = [
        (part.removeprefix("speed "), name, f"{speed / TERA:.1f}", precision, f"{speed / peaks[precision]:.3f}")
        for part, name, speed, precision in rows(lines)
    ]
    print(table(("network", "step", "10¹² operations/s", "precision", "share of the peak"), speeds))
    sizes = [
        (part.removeprefix("speed "), f"{measured:.1f}", f"{predicted:.1f}", f"{predicted / measured:.2f}")
        for part, measured, predicted in memory(lines)
    ]
    print(table(("network", "peak, GiB", "predicted, GiB", "ratio"), sizes))


if __name__ == "__main__":
    main()
