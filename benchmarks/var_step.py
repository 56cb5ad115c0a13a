"""What a step of DDO costs in the real VAR: `DDO_DEVICE=cpu OMP_NUM_THREADS=1 python -m benchmarks.var_step CHECKOUT`.

The integration's own step against upstream's own MLE step, and against DDO as one would first write it; the sampler
against upstream's. A network of few blocks on pyramids of 256 × 256 pixels. CPU time, so that other programs disturb
little. Images become tokens at no cost: upstream's tokeniser would add the same to every step.
"""

from __future__ import annotations

import contextlib
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

from ddo_plugin.checkouts import compat
from ddo_plugin.finetuning.session import prepare_session
from ddo_plugin.hooks import plugins

SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
SCALES = [side * side for side in SIDES]
VOCABULARY, CLASSES = 4096, 1000
ALPHA, BETA = 10.0, 0.02
LR = 1e-9  # the networks stay what they are, whatever the number of repeats


class Bench:
    """Upstream's trainer and the integration's, each with a network of its own."""

    def __init__(self, depth: int, batch: int, folder: Path):
        from trainer import VARTrainer
        from utils import misc

        from ddo_integrations.var.round import Round
        from ddo_integrations.var.trainer import DDOTrainer

        self.images, self.labels = torch.zeros(batch, 3, 1, 1), torch.randint(CLASSES, (batch,))
        self.tokens = torch.randint(VOCABULARY, (batch, sum(SCALES)))
        self.logs = {"metric_lg": misc.MetricLogger(), "tb_lg": misc.DistLogger(None, verbose=False)}
        self.mle_trainer = self._trainer(VARTrainer, depth)
        torch.save(self.mle_trainer.var_wo_ddp.state_dict(), folder / "var.pth")
        session = prepare_session("var", folder, options(folder / "var.pth"))
        never = 1 << 30
        session.position = Round(session, steps=never, accumulation=1, snapshot_steps=never, state_steps=None, seed=0)
        self.ddo_trainer = self._trainer(DDOTrainer, depth)
        self.reference = self.ddo_trainer.reference
        self.step = 0

    def _trainer(self, trainer: Any, depth: int) -> Any:
        """As train.py makes its own, but for a narrow image tokeniser that answers without work."""
        from models import build_vae_var
        from utils.amp_sc import AmpOptimizer

        vae, var = build_vae_var(device="cpu", patch_nums=SIDES, ch=32, depth=depth)
        for parameter in vae.parameters():  # train.py loads them
            torch.nn.init.normal_(parameter, std=0.02)
        vae.img_to_idxBl = lambda _: list(self.tokens.split(SCALES, 1))
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

    def ddo_step(self) -> None:
        self._train(self.ddo_trainer)

    def _train(self, trainer: Any) -> None:
        """One of the many steps that log nothing but what they log each time."""
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
        """Eq. 13 as it stands: a fake for every sample, and each network asked for each half."""
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
        """[N, L] the tokens, which upstream turns into an image at once."""
        maps: list[Tensor] = []
        embedding = self.reference.vae_quant_proxy[0].embedding
        watch = embedding.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0]))
        self.reference.autoregressive_infer_cfg(len(self.labels), self.labels, cfg=0)
        watch.remove()
        return torch.cat(maps, 1)

    def sampler(self) -> None:
        """As a step draws its fakes, but for every label."""
        self.ddo_trainer.fakes.draw(self.labels, torch.default_generator)


def options(network: Path) -> dict[str, Any]:
    """The options of a run that is given this network and nothing else."""
    offered = list(plugins.collect(plugins.manager().hook.ddo_options(upstream="var")))
    given = [f"--ddo={network}", f"--ddo-alpha={ALPHA}", f"--ddo-beta={BETA}"]
    return click.Command("var", params=offered).make_context("var", given).params


def medians(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of CPU time; the ways take turns, after a first turn that does not count."""
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
    """Steps of MLE and DDO in VAR, and its samplers, as ratios."""
    sys.path.insert(0, str(checkout.resolve()))
    compat.apply()
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):  # upstream describes each network at length
            bench = Bench(depth, batch, Path(folder))
        steps = medians(
            {"MLE, upstream's": bench.mle_step, "DDO": bench.ddo_step, "DDO, naive": bench.naive_step}, repeats
        )
        samplers = medians({"upstream's, guidance 0": bench.upstreams_sampler, "ours": bench.sampler}, repeats)
    for title, found in ("step", steps), ("sampler", samplers):
        first = next(iter(found.values()))
        print(f"\n| {title}, depth {depth}, batch {batch} | CPU seconds | ratio |\n|---|---|---|")
        for name, seconds in found.items():
            print(f"| {name} | {seconds:.2f} | {seconds / first:.2f} |")


if __name__ == "__main__":
    main()
