"""Time and memory of a DDO step in EDM and EDM2: `python -m benchmarks.gpu.speed_diffusion NETWORK FOLDER`.

NETWORK is edm, edm2-s or edm2-l; the checkout is on the path, and FOLDER holds the files of make_networks.py. A step on
N real images and N fakes is compared with its parts: upstream's step on 2N images, and the reference's forward on 2N.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from torch import Tensor

from benchmarks.gpu import measure, session
from benchmarks.gpu.measure import DEVICE, ON_CPU, Way
from benchmarks.gpu.results import attempt, record
from ddo_plugin import describe_pickle
from ddo_plugin.checkouts import compat
from ddo_plugin.snapshots.reference import target_settings

LR = 1e-7  # so small that the network does not change over the repeats
SMALL = 4  # shows the time that Python takes, which a GPU hides behind large batches
REPEATS = 3 if ON_CPU else 12
SECONDS = 30  # of the main timing at most; others take half
BATCHES = {"edm": 128, "edm2-s": 16, "edm2-l": 4}  # halved until a step fits into memory


class Bench:
    """One network with its optimizer, trained by upstream's loss or by DDO's."""

    def __init__(self, name: str, folder: Path):
        from torch_utils import distributed as dist

        self.name, self.upstream = name, name.split("-")[0]
        if not torch.distributed.is_initialized():
            dist.init()
        file = folder / f"{name}.pkl"
        info = describe_pickle(file).network
        shape = (info.channels or 0, info.resolution or 0, info.resolution or 0)
        fakes = session.make_fakes(file, shape, info.label_dim or 0, folder / f"fakes-{name}")
        arguments = [f"--ddo={file}", f"--ddo-fakes={fakes}"]
        self.session = session.start(self.upstream, folder / f"round-{name}", *arguments)
        self.info: Any = self.session.reference.info
        build = self._edm if self.upstream == "edm" else self._edm2
        self.net, self.ddo_loss, self.mle_loss = build()
        self.net.train().requires_grad_(True).to(DEVICE)
        self.net.use_fp16 = False
        self.reference = self.session.reference.network.to(DEVICE)
        self.ddp = torch.nn.parallel.DistributedDataParallel(self.net, device_ids=[DEVICE])
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=LR)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False

    def _settings(self) -> dict[str, Any]:
        info = self.info
        interface = {"img_resolution": info.resolution, "img_channels": info.channels, "label_dim": info.label_dim}
        return target_settings(self.session.reference) | interface

    def _edm(self) -> tuple[Any, Callable[..., Tensor], Callable[..., Tensor]]:
        from training.augment import AugmentPipe
        from training.loss import EDMLoss

        from ddo_integrations.edm import events
        from ddo_integrations.edm.loss import DDOLoss
        from ddo_integrations.edm.networks import start

        events.watch(self.session, BATCHES["edm"], 0, 1 << 60)
        pipe = AugmentPipe(p=0.12, xflip=1e8, yflip=1, scale=1, rotate_frac=1, aniso=1, translate_frac=1)
        augment = {"augment_pipe": pipe}
        net = start(self.info.class_name, **self._settings())
        return net, partial(DDOLoss({}, {}), **augment), partial(EDMLoss(), **augment)

    def _edm2(self) -> tuple[Any, Callable[..., Tensor], Callable[..., Tensor]]:
        from training.training_loop import EDM2Loss

        from ddo_integrations.edm2 import events
        from ddo_integrations.edm2.loss import DDOLoss
        from ddo_integrations.edm2.networks import start

        events.watch(self.session, None, BATCHES[self.name])
        return start(**self._settings()), DDOLoss({}, {}), EDM2Loss()

    def set_batch(self, batch: int) -> None:
        """Draw N images for DDO's step, and 2N for the parts that it is compared with."""
        shape = (2 * batch, self.info.channels, self.info.resolution, self.info.resolution)
        numbers = torch.randint(self.info.label_dim, (2 * batch,))
        labels = torch.nn.functional.one_hot(numbers, self.info.label_dim).float()
        self.batch = self.session.position.batch_size = batch
        sigma = torch.rand(2 * batch, 1, 1, 1)
        self.images, self.labels, self.sigma = session.on_device(torch.randn(shape), labels, sigma)

    def _step(self, loss_fn: Callable[..., Tensor], count: int) -> None:
        """Update the weights as upstream's loop does."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(net=self.ddp, images=self.images[:count], labels=self.labels[:count])
        loss.sum().mul(1 / count).backward()
        for parameter in self.net.parameters():
            if parameter.grad is not None:
                torch.nan_to_num(parameter.grad, nan=0, posinf=0, neginf=0, out=parameter.grad)
        self.optimizer.step()

    def ddo_step(self) -> None:
        self._step(self.ddo_loss, self.batch)

    def mle_step(self) -> None:
        """Run upstream's step on 2N images in fp32, as DDO computes."""
        self._step(self.mle_loss, 2 * self.batch)

    def half_precision_step(self) -> None:
        """Run upstream's step on 2N images in the precision that EDM2 trains in."""
        self.net.use_fp16 = True
        try:
            self.mle_step()
        finally:
            self.net.use_fp16 = False

    def compile(self) -> dict[str, float]:
        """Compile both networks for DDO's step, while they are equal; return how long it took and the largest |r|."""
        self.net.load_state_dict(self.reference.state_dict())
        loss: Any = getattr(self.ddo_loss, "func", self.ddo_loss)
        loss.compiled = True
        ratios, objective = list[Tensor](), self.session.objective

        def watched(terms: Any) -> Any:
            ratios.extend((terms.r_real, terms.r_fake))
            return objective(terms)

        with mock.patch.object(self.session, "objective", watched):
            measure.synchronize()
            start = time.perf_counter()
            self.ddo_step()
            measure.synchronize()
        return {
            "compile s": round(time.perf_counter() - start, 1),
            "largest |r|": float(torch.cat(ratios).detach().abs().max()),
        }

    def eager_step(self) -> None:
        """Run DDO's step without the code that torch.compile made."""
        with torch.compiler.set_stance("force_eager"):
            self.ddo_step()

    @torch.no_grad()
    def reference_forward(self) -> None:
        width = self.info.augment_dim if self.upstream == "edm" else None
        augmented = {"augment_labels": self.images.new_zeros(len(self.images), width)} if width else {}
        self.reference(self.images, self.sigma, self.labels, force_fp32=True, **augmented)

    def fakes(self) -> None:
        """Read the fakes of a step and copy them to the device."""
        assert self.session.fakes is not None
        for tensor in self.session.fakes.draw(self.batch):
            if tensor is not None:
                tensor.to(DEVICE)


def steps(bench: Bench, repeats: int = REPEATS) -> dict[str, Any]:
    """Time DDO's step and the parts that it is made of."""
    ways: dict[str, Way] = {
        "ddo": bench.ddo_step,
        "mle on 2N": bench.mle_step,
        "reference on 2N": bench.reference_forward,
        "fakes": bench.fakes,
    }
    times, turns = measure.time_ways(ways, repeats, SECONDS if repeats == REPEATS else SECONDS / 2)
    bound = times["mle on 2N"] + times["reference on 2N"]
    return {
        "ms": times,
        "ratio": round(times["ddo"] / bound, 4),
        "overhead ms": round(times["ddo"] - bound, 3),
        "real images/s": round(1000 * bench.batch / times["ddo"], 2),
        "batch": bench.batch,
        "turns": turns,
    }


def compiled(bench: Bench) -> dict[str, Any]:
    """Compile DDO's step, and time it with and without the compiled code."""
    made = bench.compile()
    times, turns = measure.time_ways({"ddo, compiled": bench.ddo_step, "ddo": bench.eager_step}, REPEATS, SECONDS / 2)
    ratio = round(times["ddo, compiled"] / times["ddo"], 4)
    return {**made, "ms": times, "ratio": ratio, "batch": bench.batch, "turns": turns}


def memory(bench: Bench, parameters: int) -> dict[str, Any]:
    """Return the peaks of both steps, and the bound of what does not depend on the batch."""
    peaks = {"ddo": measure.peak_gib(bench.ddo_step), "mle on 2N": measure.peak_gib(bench.mle_step)}
    return {"peak GiB": peaks, "static GiB": measure.static_gib(parameters)}


@click.command()
@click.argument("name", type=click.Choice(list(BATCHES)))
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def main(name: str, folder: Path) -> None:
    """Measure DDO's step with one network."""
    compat.apply()
    bench = Bench(name, folder.resolve())
    parameters, part = session.parameters(bench.net), f"speed {name}"

    def both(batch: int) -> None:
        bench.set_batch(batch)
        for _ in range(2):  # Adam's moments exist after the first step
            bench.ddo_step()
            bench.mle_step()

    with measure.tf32(False):  # as upstream's loops set it
        batch = measure.largest_batch(4 if ON_CPU else BATCHES[name], both)
        record(part, "network", parameters=parameters, batch=batch, **measure.machine())
        attempt(part, "step", lambda: steps(bench))
        attempt(part, "memory", lambda: memory(bench, parameters))
        attempt(part, "waits", lambda: {"places": measure.waits(bench.ddo_step)})
        if name == "edm":
            attempt(part, "profile", lambda: measure.profile(bench.ddo_step, name))
        bench.set_batch(SMALL)
        attempt(part, "step, small batch", lambda: steps(bench))
        bench.set_batch(batch)
    with measure.tf32(True):
        attempt(part, "step, TF32", lambda: steps(bench, REPEATS // 2))
    if bench.upstream == "edm2":
        half = {"mle on 2N": bench.half_precision_step}
        attempt(part, "step, upstream's fp16", lambda: measure.time_ways(half, REPEATS // 2)._asdict())
    with measure.tf32(False):
        attempt(part, "step, compiled", lambda: compiled(bench))  # the last, because it changes the networks
        attempt(part, "memory, compiled", lambda: {"peak GiB": {"ddo, compiled": measure.peak_gib(bench.ddo_step)}})


if __name__ == "__main__":
    main()
