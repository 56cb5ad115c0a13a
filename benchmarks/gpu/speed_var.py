"""Time and memory of a DDO step in VAR: `python -m benchmarks.gpu.speed_var DEPTH FOLDER`, with VAR on the path.

A step on N real images and its M = N/2 fakes is compared with its parts: upstream's step on all of them, sampling M
fakes, and the reference's forward. If fakes are sampled in the precision of the step, sampling gives their
log-probabilities, and the forward is on N; by default they are sampled in fp32, and it is on N + M. The image tokenizer
is replaced by fixed tokens in these steps, and timed by itself.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch.distributed import is_initialized
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu import measure, session
from benchmarks.gpu.make_networks import SIDES, VAE, VAE_WIDTH
from benchmarks.gpu.measure import DEVICE, ON_CPU, Way
from benchmarks.gpu.results import attempt, record
from ddo_plugin.checkouts import compat

VOCABULARY, CLASSES = 4096, 1000
LR = 1e-9  # so small that the networks do not change over the repeats
REPEATS = 3 if ON_CPU else 12
SECONDS = 30  # of the main timing at most; others take half
BATCHES = {2: 8, 16: 32, 30: 8}  # halved until a step fits into memory
PRECISIONS = {"fp16": 1, "bf16": 2, "fp32": 0}
FOREVER = 1 << 30


class Bench:
    """Upstream's trainer and DDO's trainer, which share one network and its optimizer."""

    def __init__(self, depth: int, folder: Path, sides: Sequence[int] = SIDES, vae_width: int = VAE_WIDTH):
        from models import build_vae_var
        from trainer import VARTrainer
        from utils import misc
        from utils.amp_sc import AmpOptimizer

        from ddo_integrations.var.fakes import DrawnFakes
        from ddo_integrations.var.round import Round
        from ddo_integrations.var.trainer import DDOTrainer

        self.sides, self.scales = sides, [side * side for side in sides]
        self.logs = {"metric_lg": misc.MetricLogger(), "tb_lg": misc.DistLogger(None, verbose=False)}
        started = session.start("var", folder / f"round-{depth}", f"--ddo={folder / f'var_d{depth}.pth'}")
        started.position = Round(
            started, steps=FOREVER, accumulation=1, snapshot_steps=FOREVER, state_steps=None, seed=0
        )
        self.vae, self.var = build_vae_var(device=DEVICE, patch_nums=sides, ch=vae_width, depth=depth)
        self.vae.load_state_dict(torch.load(folder / VAE, map_location="cpu"))
        names, parameters = zip(*self.var.named_parameters(), strict=True)
        adam = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.95), weight_decay=0, fused=True)
        self.optimizers = {
            name: AmpOptimizer(number, adam, names, parameters, grad_clip=2.0) for name, number in PRECISIONS.items()
        }
        # like train.py, without a stand-in for the missing process group
        self.ddp = DistributedDataParallel(self.var, broadcast_buffers=False) if is_initialized() else self.var
        self.step = 0

        def trainer(kind: Any) -> Any:
            return kind(
                device=DEVICE,
                patch_nums=sides,
                resos=[16 * side for side in sides],
                vae_local=self.vae,
                var_wo_ddp=self.var,
                var=self.ddp,
                var_opt=self.optimizers["fp16"],
                label_smooth=0.0,
            )

        self.mle_trainer, self.ddo_trainer = trainer(VARTrainer), trainer(DDOTrainer)
        self.reference = self.ddo_trainer.reference
        self.sources = {
            "tokens": DrawnFakes(self.reference, self.vae, from_pixels=False, guidance=0.0, in_fp32=True),
            "amp": DrawnFakes(self.reference, self.vae, from_pixels=False, guidance=0.0, in_fp32=False),
            "default": DrawnFakes(self.reference, self.vae, from_pixels=True, guidance=0.0, in_fp32=True),
        }
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # upstream's --tf32=1
        torch.backends.cudnn.allow_tf32 = True

    def set_precision(self, name: str) -> None:
        """Use the optimizer of this precision, upstream's --fp16."""
        self.mle_trainer.var_opt = self.ddo_trainer.var_opt = self.optimizers[name]

    def set_batch(self, batch: int) -> None:
        """Draw N images and labels, and tokens for these and their fakes."""
        side, both = 16 * self.sides[-1], batch + batch // 2
        self.batch, self.fakes, self.both = batch, batch // 2, both
        images, labels, tokens = (
            torch.rand(both, 3, side, side) * 2 - 1,
            torch.randint(CLASSES, (both,)),
            torch.randint(VOCABULARY, (both, sum(self.scales))),
        )
        self.images, self.labels, self.tokens = session.on_device(images, labels, tokens)

    @contextlib.contextmanager
    def without_tokenizer(self) -> Iterator[None]:
        """Let the image tokenizer return fixed tokens, which takes no time."""
        self.vae.img_to_idxBl = lambda images: list(self.tokens[: len(images)].split(self.scales, 1))
        self.vae.fhat_to_img = lambda features: features.new_zeros(len(features), 3, 1, 1)
        try:
            yield
        finally:
            del self.vae.img_to_idxBl, self.vae.fhat_to_img

    def ddo_step(self, source: str = "default") -> None:
        self.ddo_trainer.fakes = self.sources[source]
        self.train(self.ddo_trainer, self.batch)

    def mle_step(self) -> None:
        """Run upstream's step on as many samples as DDO's step has real images and fakes."""
        self.train(self.mle_trainer, self.both)

    def train(self, trainer: Any, count: int) -> None:
        """Run a step without the extra logging of some steps."""
        self.step += 1
        trainer.train_step(
            it=self.step,
            g_it=self.step,
            stepping=True,
            **self.logs,
            inp_B3HW=self.images[:count],
            label_B=self.labels[:count],
            prog_si=-1,
            prog_wp_it=1.0,
        )

    @torch.no_grad()
    def reference_forward(self, count: int) -> None:
        tokens = list(self.tokens[:count].split(self.scales, 1))
        with self.ddo_trainer.var_opt.amp_ctx:
            self.reference(self.labels[:count], self.vae.quantize.idxBl_to_var_input(tokens))

    def sampler(self, source: str) -> None:
        """Draw fakes like a step does."""
        with self.ddo_trainer.var_opt.amp_ctx:
            generator = torch.Generator(DEVICE).manual_seed(0)
            self.sources[source].draw(self.labels[: self.fakes], generator)

    def upstreams_sampler(self) -> None:
        """Draw as many samples by upstream's sampler without guidance."""
        with self.ddo_trainer.var_opt.amp_ctx:
            self.reference.autoregressive_infer_cfg(self.fakes, self.labels[: self.fakes], cfg=0)

    @torch.no_grad()
    def encode(self) -> None:
        self.vae.img_to_idxBl(self.images[: self.batch])

    @torch.no_grad()
    def decode(self) -> None:
        side = self.sides[-1]
        self.vae.fhat_to_img(torch.zeros(self.fakes, 32, side, side, device=DEVICE))


def steps(bench: Bench, repeats: int = REPEATS) -> dict[str, Any]:
    """Time DDO's steps and the parts that they are made of, without the image tokenizer."""
    ways: dict[str, Way] = {
        "ddo": bench.ddo_step,
        "ddo, amp": partial(bench.ddo_step, "amp"),
        "mle on N+M": bench.mle_step,
        "reference on N": lambda: bench.reference_forward(bench.batch),
        "reference on N+M": lambda: bench.reference_forward(bench.both),
        "sampling M": partial(bench.sampler, "default"),
        "sampling M, amp": partial(bench.sampler, "amp"),
        "upstream's sampler, M": bench.upstreams_sampler,
    }
    with bench.without_tokenizer():
        times, turns = measure.time_ways(ways, repeats, SECONDS if repeats == REPEATS else SECONDS / 2)
    bound = times["mle on N+M"] + times["reference on N+M"] + times["sampling M"]
    bound_amp = times["mle on N+M"] + times["reference on N"] + times["sampling M, amp"]
    return {
        "ms": times,
        "ratio": round(times["ddo"] / bound, 4),
        "ratio, amp": round(times["ddo, amp"] / bound_amp, 4),
        "overhead ms": round(times["ddo"] - bound, 3),
        "real images/s": round(1000 * bench.batch / times["ddo"], 2),
        "turns": turns,
    }


def memory(bench: Bench, parameters: int) -> dict[str, Any]:
    """Return the peaks of both steps, and the bound of what does not depend on the batch."""
    with bench.without_tokenizer():
        peaks = {"ddo": measure.peak_gib(bench.ddo_step), "mle on N+M": measure.peak_gib(bench.mle_step)}
    return {"peak GiB": peaks, "static GiB": measure.static_gib(parameters)}


def tokenizer(bench: Bench, repeats: int) -> dict[str, Any]:
    """Time the image tokenizer, and a whole step with it."""
    ways: dict[str, Way] = {"encode N": bench.encode, "decode M": bench.decode, "ddo with tokenizer": bench.ddo_step}
    return measure.time_ways(ways, repeats, SECONDS / 3)._asdict()


def without_tokenizer(bench: Bench, action: Callable[[Way], Any]) -> Any:
    with bench.without_tokenizer():
        return action(bench.ddo_step)


@click.command()
@click.argument("depth", type=int)
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def main(depth: int, folder: Path) -> None:
    """Measure DDO's step with one network."""
    os.chdir(folder)  # first, because VAR and its fixes look for git in the current folder
    compat.apply()
    with contextlib.redirect_stdout(io.StringIO()):  # upstream prints a description of each network
        bench = Bench(depth, folder.resolve())
    parameters, part = session.parameters(bench.var), f"speed var-d{depth}"

    def both(batch: int) -> None:
        bench.set_batch(batch)
        with bench.without_tokenizer():
            for _ in range(2):  # Adam's moments exist after the first step
                bench.ddo_step()
                bench.mle_step()

    batch = measure.largest_batch(BATCHES[depth], both)
    record(part, "network", parameters=parameters, batch=batch, **measure.machine())
    attempt(part, "step, fp16", lambda: steps(bench))
    attempt(part, "memory, fp16", lambda: memory(bench, parameters))
    attempt(part, "waits", lambda: {"places": without_tokenizer(bench, measure.waits)})
    attempt(part, "tokenizer", lambda: tokenizer(bench, REPEATS // 3))
    if depth < 30:
        name = f"var-d{depth}"
        attempt(part, "profile", lambda: without_tokenizer(bench, lambda way: measure.profile(way, name)))
        for precision in ("bf16", "fp32"):
            bench.set_precision(precision)
            attempt(part, f"step, {precision}", lambda: steps(bench, REPEATS // 2))


if __name__ == "__main__":
    main()
