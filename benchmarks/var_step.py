"""Measure the cost of a DDO step in VAR: `DDO_DEVICE=cpu OMP_NUM_THREADS=1 python -m benchmarks.var_step CHECKOUT`.

The integration's step is compared with upstream's MLE step and with a direct implementation of DDO, and the sampler
with upstream's sampler. The network has few blocks and works on token pyramids of 256 × 256 pixels. The unit is CPU
time, which other programs hardly affect. In the steps, a stand-in for the image tokenizer takes no time; the real one,
with random weights, is measured by itself.
"""

from __future__ import annotations

import contextlib
import functools
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.gpu.session import start
from ddo_plugin.checkouts import compat

SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
SCALES = [side * side for side in SIDES]
VOCABULARY, CLASSES = 4096, 1000
ALPHA, BETA = 10.0, 0.02
LR = 1e-9  # so small that the networks do not change over the repeats


class Bench:
    """Upstream's trainer and the integration's trainer, each with its own network."""

    def __init__(self, depth: int, batch: int, folder: Path):
        from trainer import VARTrainer
        from utils import misc

        from ddo_integrations.var.fakes import DrawnFakes
        from ddo_integrations.var.round import Round
        from ddo_integrations.var.trainer import DDOTrainer

        self.images, self.labels = torch.zeros(batch, 3, 1, 1), torch.randint(CLASSES, (batch,))
        self.tokens = torch.randint(VOCABULARY, (batch, sum(SCALES)))
        self.logs = {"metric_lg": misc.MetricLogger(), "tb_lg": misc.DistLogger(None, verbose=False)}
        self.mle_trainer = self._trainer(VARTrainer, depth)
        network = folder / "var.pth"
        torch.save(self.mle_trainer.var_wo_ddp.state_dict(), network)
        session = start("var", folder, f"--ddo={network}", f"--ddo-alpha={ALPHA}", f"--ddo-beta={BETA}")
        never = 1 << 30
        session.position = Round(session, steps=never, accumulation=1, snapshot_steps=never, state_steps=None, seed=0)
        self.ddo_trainer = self._trainer(DDOTrainer, depth)
        self.reference = self.ddo_trainer.reference
        self.fakes = {
            way: DrawnFakes(
                self.reference,
                self.ddo_trainer.vae_local,
                from_pixels=way == "pixels",
                guidance=0.0,
                in_fp32=True,
            )
            for way in ("pixels", "tokens")
        }
        self.step = 0

    def _trainer(self, trainer: Any, depth: int) -> Any:
        """Build a trainer like train.py, but with an image tokenizer that returns fixed tokens."""
        from models import build_vae_var
        from utils.amp_sc import AmpOptimizer

        vae, var = build_vae_var(device="cpu", patch_nums=SIDES, ch=32, depth=depth)
        for parameter in vae.parameters():  # train.py loads these weights
            torch.nn.init.normal_(parameter, std=0.02)
        vae.img_to_idxBl = lambda images: list(self.tokens[: len(images)].split(SCALES, 1))
        vae.fhat_to_img = lambda features: features.new_zeros(len(features), 3, 1, 1)
        names, parameters = zip(*var.named_parameters(), strict=True)
        optimizer = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.95), weight_decay=0, fused=True)
        return trainer(
            device="cpu",
            patch_nums=SIDES,
            resos=[16 * side for side in SIDES],
            vae_local=vae,
            var_wo_ddp=var,
            var=var,
            var_opt=AmpOptimizer(0, optimizer, names, parameters, grad_clip=2.0),
            label_smooth=0.0,
        )

    def mle_step(self) -> None:
        self._train(self.mle_trainer)

    def ddo_step(self, fakes_from: str) -> None:
        self.ddo_trainer.fakes = self.fakes[fakes_from]
        self._train(self.ddo_trainer)

    def _train(self, trainer: Any) -> None:
        """Run a step without the extra logging of some steps."""
        self.step += 1
        trainer.train_step(
            it=self.step,
            g_it=self.step,
            stepping=True,
            **self.logs,
            inp_B3HW=self.images,
            label_B=self.labels,
            prog_si=-1,
            prog_wp_it=1.0,
        )

    def naive_step(self) -> None:
        """Run Eq. 13 directly: a fake for every sample, and a forward of each network for each half."""
        trainer = self.ddo_trainer
        fakes = self.upstreams_sampler()
        with torch.no_grad():
            real_ref, fake_ref = (self._logp(self.reference, tokens) for tokens in (self.tokens, fakes))
        real, fake = (self._logp(trainer.var, tokens) for tokens in (self.tokens, fakes))
        loss = -logsigmoid(BETA * (real - real_ref)).mean() - ALPHA * logsigmoid(-BETA * (fake - fake_ref)).mean()
        trainer.var_opt.backward_clip_step(loss=loss, stepping=True)

    def _logp(self, network: Any, tokens: Tensor) -> Tensor:
        inputs = self.ddo_trainer.quantize_local.idxBl_to_var_input(list(tokens.split(SCALES, 1)))
        logp = network(self.labels, inputs).log_softmax(-1)
        return logp.gather(2, tokens[..., None]).squeeze(2).sum(1)

    def upstreams_sampler(self) -> Tensor:
        """Return the tokens [N, L] of upstream's sampler, which decodes them to images."""
        maps: list[Tensor] = []
        embedding = self.reference.vae_quant_proxy[0].embedding
        watch = embedding.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0]))
        self.reference.autoregressive_infer_cfg(len(self.labels), self.labels, cfg=0)
        watch.remove()
        return torch.cat(maps, 1)

    def sampler(self) -> None:
        """Draw fakes like a step does, for every label."""
        self.fakes["tokens"].draw(self.labels, torch.default_generator)


class Tokenizer:
    """Upstream's image tokenizer at its full size, with random weights."""

    def __init__(self) -> None:
        from models import VQVAE

        self.vae = VQVAE(z_channels=32, ch=160, v_patch_nums=SIDES)
        self.image, self.features = torch.zeros(1, 3, 256, 256), torch.zeros(1, 32, SIDES[-1], SIDES[-1])

    @torch.no_grad()
    def encode(self) -> None:
        self.vae.img_to_idxBl(self.image)

    @torch.no_grad()
    def decode(self) -> None:
        self.vae.fhat_to_img(self.features)


def medians(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median CPU seconds of each way. The ways take turns, and the first turn does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--depth", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--batch", type=click.IntRange(min=2), default=8, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
def main(checkout: Path, depth: int, batch: int, repeats: int) -> None:
    """Print the CPU seconds of VAR's MLE and DDO steps and of its samplers."""
    sys.path.insert(0, str(checkout.resolve()))
    compat.apply()
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):  # upstream prints a description of each network
            bench = Bench(depth, batch, Path(folder))
        steps = medians(
            {
                "MLE, upstream's": bench.mle_step,
                "DDO, fakes from tokens": functools.partial(bench.ddo_step, "tokens"),
                "DDO, fakes from pixels": functools.partial(bench.ddo_step, "pixels"),
                "DDO, naive": bench.naive_step,
            },
            repeats,
        )
        samplers = medians({"upstream's, guidance 0": bench.upstreams_sampler, "ours": bench.sampler}, repeats)
        tokenizer = Tokenizer()
        coding = medians({"encode an image": tokenizer.encode, "decode an image": tokenizer.decode}, repeats)
    network = f"depth {depth}, batch {batch}"
    tables = {f"step, {network}": steps, f"sampler, {network}": samplers, "image tokenizer, batch 1": coding}
    for title, measured in tables.items():
        first = next(iter(measured.values()))
        print(f"\n| {title} | CPU seconds | ratio |\n|---|---|---|")
        for name, seconds in measured.items():
            print(f"| {name} | {seconds:.2f} | {seconds / first:.2f} |")


if __name__ == "__main__":
    main()
