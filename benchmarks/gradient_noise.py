"""Compare the variance of a step's gradient with paired and independent noise, in the real EDM on digits.

`OMP_NUM_THREADS=1 python -m benchmarks.gradient_noise CHECKOUT --out DIR`. DIR is the folder of benchmarks.digits_edm,
or will be: networks and fakes that it holds already are used. The loss is the integration's own. Takes 7 minutes of one
core, and 4 more for the base.
"""

from __future__ import annotations

import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.digits_edm import DDO, EDM
from ddo_integrations.demo.data import CLASSES, Digits, to_unit
from ddo_plugin.checkouts import compat
from ddo_plugin.finetuning.session import Session, prepare_session
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Fakes
from ddo_plugin.snapshots.reference import load_reference, target_settings

BATCH, MIDDLE = 64, "network-snapshot-000008.pkl"  # a round has 16 kimg
NOISE = ("paired", "independent")


class FixedFakes:
    """Hands out the same fakes at each draw."""

    def __init__(self, fakes: Fakes):
        self.shape, self.classes, self.description = fakes.shape, fakes.classes, fakes.description
        self.batch = fakes.draw(BATCH)

    def draw(self, count: int) -> tuple[Tensor, Tensor | None]:
        return self.batch


@dataclass
class Step:
    """A training step of EDM with the loss of a session."""

    session: Session
    net: torch.nn.Module
    digits: Digits

    def __post_init__(self) -> None:
        from ddo_integrations.edm.events import Progress
        from ddo_integrations.edm.loss import DDOLoss

        self.session.position = Progress(BATCH, BATCH)  # after the first step, where r must be 0
        self.loss_fn = DDOLoss({}, {})

    def gradients(self, count: int, fixed_batch: bool) -> Tensor:
        """Return [count, parameters]. Each draw has other noise and, unless the batch is fixed, other images."""
        torch.manual_seed(0)
        fakes, batch = self.session.fakes, self._real_batch()
        assert fakes is not None
        if fixed_batch:
            self.session.fakes = FixedFakes(fakes)
        drawn = [self._gradient(*(batch if fixed_batch else self._real_batch())) for _ in range(count)]
        self.session.fakes = fakes
        return torch.stack(drawn)

    def _real_batch(self) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(self.digits.images), (BATCH,))
        labels = one_hot(torch.from_numpy(self.digits.labels)[rows], CLASSES).float()
        return to_unit(torch.from_numpy(self.digits.images)[rows]), labels

    def _gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        self.net.zero_grad()
        self.loss_fn(net=self.net, images=images, labels=labels).sum().div(BATCH).backward()
        return torch.cat([weight.grad.flatten() for weight in self.net.parameters() if weight.grad is not None])


def options(base: Path, fakes: Path, noise: str) -> dict[str, Any]:
    """Return the options of a round."""
    offered = list(plugins.collect(plugins.manager().hook.ddo_options(upstream="edm")))
    arguments = [f"--ddo={base}", f"--ddo-fakes={fakes}", f"--ddo-noise={noise}", *DDO]
    return click.Command("edm", params=offered).make_context("edm", arguments).params


def step_at(network: Path, settings: dict[str, Any], digits: Digits, folder: Path) -> Step:
    """Return a step of a round that has come from its base to this network."""
    from ddo_integrations.edm.networks import start
    from ddo_integrations.edm.plugin import integration

    session = prepare_session("edm", folder, settings)
    info = session.reference.info
    interface = {"img_resolution": info.resolution, "img_channels": info.channels, "label_dim": info.label_dim}
    net = start(info.class_name, **target_settings(session.reference), **interface)
    net.load_state_dict(load_reference(str(network), settings, integration.upstream).network.state_dict())
    return Step(session, net.train().requires_grad_(True), digits)


def total_variance(gradients: Tensor) -> tuple[float, float]:
    """Return E‖g − E g‖², the trace of the covariance, and its standard error."""
    count, mean = len(gradients), gradients.mean(0)
    squares = torch.stack([(gradient - mean).square().sum() for gradient in gradients]) * count / (count - 1)
    return float(squares.mean()), float(squares.std() / math.sqrt(count))


def compare(gradients: dict[str, Tensor]) -> str:
    """Return the cells of a row: both variances relative to ‖E g‖², and their ratio."""
    (paired, paired_error), (independent, independent_error) = (total_variance(gradients[noise]) for noise in NOISE)
    # E g is the same for both, so the product of two means without common noise is an unbiased estimate of ‖E g‖².
    signal = float(gradients["paired"].mean(0) @ gradients["independent"].mean(0))
    ratio = independent / paired
    error = ratio * math.hypot(paired_error / paired, independent_error / independent)
    return f"{paired / signal:.1f} | {independent / signal:.1f} | {ratio:.2f} ± {error:.2f}"


def prepare(bench: EDM) -> tuple[dict[str, Path], Path]:
    """Train the base and a round from it, unless the folder has them; return the networks and the fakes."""
    bench.prepare()
    base = bench.pretrain()
    fakes = bench.reference_set(base, 1, 0)
    out = bench.root / "gradient-noise"
    flags = [f"--ddo={base}", f"--ddo-fakes={fakes}", f"--data={bench.zip}", f"--outdir={out}", "--seed=0"]
    round_ = [*bench.arms["ddo"], "--snap=2"]
    bench.run(out, "-m", "ddo_plugin", "run", bench.repo, bench.script, "--", *flags, *round_)
    return {"start of a round": base, "middle of a round": out / MIDDLE}, fakes


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="digits-edm",
    show_default=True,
    help="Folder of benchmarks.digits_edm.",
)
@click.option(
    "--draws", type=click.IntRange(min=2), default=400, show_default=True, help="Gradients of each kind to draw."
)
def main(checkout: Path, out: Path, draws: int) -> None:
    """Compare the variance of a step's gradient with paired and independent noise."""
    out.mkdir(parents=True, exist_ok=True)
    bench = EDM(checkout.resolve(), out.resolve(), 1)
    networks, fakes = prepare(bench)
    sys.path.insert(0, str(bench.repo))
    compat.apply()
    print("| network | drawn anew | paired | independent | independent / paired |\n|---|---|---|---|---|")
    for name, network in networks.items():
        for drawn, fixed_batch in (("noise", True), ("noise, real images and fakes", False)):
            gradients = {}
            with tempfile.TemporaryDirectory() as folder:  # for the statistics of the steps
                for noise in NOISE:
                    settings = options(networks["start of a round"], fakes, noise)
                    step = step_at(network, settings, bench.digits, Path(folder) / noise)
                    gradients[noise] = step.gradients(draws, fixed_batch)
            print(f"| {name} | {drawn} | {compare(gradients)} |", flush=True)


if __name__ == "__main__":
    main()
