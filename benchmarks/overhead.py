"""Python's overhead of a DDO step in EDM and EDM2, on a CPU.

`DDO_DEVICE=cpu OMP_NUM_THREADS=1 python -m benchmarks.overhead UPSTREAM CHECKOUT`. The networks are so small that
Python takes most of the time. The unit is CPU time, which other programs hardly affect.
"""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch

from benchmarks.cpu_time import medians
from benchmarks.gpu import make_networks
from benchmarks.gpu.measure import ON_CPU
from benchmarks.gpu.speed_diffusion import Bench
from ddo_plugin.base.environment import free_port
from ddo_plugin.checkouts import compat

BATCH = 4  # real images of a step
NAMES = {"edm": "edm", "edm2": "edm2-s"}  # as the GPU kit calls the networks


def write_network(upstream: str, folder: Path, side: int = 8, channels: int = 8) -> None:
    """Write a network of one block."""
    size = {"model_channels": channels, "channel_mult": [1], "num_blocks": 1}
    dataset = {"class_name": "training.dataset.ImageFolderDataset", "path": "data.zip"}
    rest: dict[str, Any]
    if upstream == "edm":
        from training.loss import EDMLoss
        from training.networks import EDMPrecond

        net = EDMPrecond(side, 3, label_dim=10, **make_networks.SONG | size)
        rest = {"loss_fn": EDMLoss(), "augment_pipe": None}
    else:
        from training.encoders import StandardRGBEncoder
        from training.networks_edm2 import Precond
        from training.training_loop import EDM2Loss

        net = Precond(side, 3, label_dim=10, **size)
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


@click.command()
@click.argument("upstream", type=click.Choice(["edm", "edm2"]))
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--repeats", type=click.IntRange(min=1), default=300, show_default=True, help="Steps to measure.")
def main(upstream: str, checkout: Path, repeats: int) -> None:
    """Print the overhead of a DDO step in milliseconds.

    That of VAR's step is not measured here; `benchmarks.var_step` compares whole steps of VAR.
    """
    if not ON_CPU:
        raise click.UsageError("this benchmark is for a CPU; set DDO_DEVICE=cpu")
    os.environ.setdefault("MASTER_PORT", str(free_port()))
    sys.path.insert(0, str(checkout.resolve()))
    compat.apply()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        print(f"\n| {upstream}, {BATCH} real images and {BATCH} fakes | CPU ms |\n|---|---|")
        for name, milliseconds in step(upstream, Path(folder), repeats).items():
            print(f"| {name} | {milliseconds:.2f} |")


if __name__ == "__main__":
    main()
