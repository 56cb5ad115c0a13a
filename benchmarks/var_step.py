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
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.cpu_time import medians
from benchmarks.gpu import make_networks, speed_var
from benchmarks.gpu.make_networks import PUBLISHED_SIDES as SIDES
from ddo_plugin.checkouts import compat

VAE_WIDTH = 32  # of the narrow tokenizer that the steps replace


class Bench(speed_var.Bench):
    """The trainers of the GPU kit, and a direct implementation of DDO."""

    def __init__(self, depth: int, batch: int, folder: Path):
        make_networks.var(folder, [depth], SIDES, VAE_WIDTH)
        super().__init__(depth, folder, SIDES, VAE_WIDTH)
        self.set_precision("fp32")
        self.set_batch(batch)

    def naive_step(self) -> None:
        """Run Eq. 13 directly: a fake for every sample, and a forward of each network for each half."""
        trainer, real = self.ddo_trainer, self.tokens[: self.batch]
        options = trainer.session.options
        fakes = self.upstreams_tokens()
        with torch.no_grad():
            real_ref, fake_ref = (self._logp(self.reference, tokens) for tokens in (real, fakes))
        r_real = self._logp(trainer.target, real) - real_ref
        r_fake = self._logp(trainer.target, fakes) - fake_ref
        beta = options["ddo_beta"]
        loss = -logsigmoid(beta * r_real) - options["ddo_alpha"] * logsigmoid(-beta * r_fake)
        trainer.var_opt.backward_clip_step(loss=loss.mean(), stepping=True)

    def _logp(self, network: Any, tokens: Tensor) -> Tensor:
        inputs = self.vae.quantize.idxBl_to_var_input(list(tokens.split(self.scales, 1)))
        logp = network(self.labels[: len(tokens)], inputs).log_softmax(-1)
        return logp.gather(2, tokens[..., None]).sum((1, 2))

    def upstreams_tokens(self) -> Tensor:
        """Return the tokens [N, L] of upstream's sampler, which decodes them to images."""
        maps: list[Tensor] = []
        embedding = self.reference.vae_quant_proxy[0].embedding
        watch = embedding.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0]))
        self.reference.autoregressive_infer_cfg(self.batch, self.labels[: self.batch], cfg=0)
        watch.remove()
        return torch.cat(maps, 1)


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
        with bench.without_tokenizer():
            steps = medians(
                {
                    "MLE, upstream's": functools.partial(bench.train, bench.mle_trainer, batch),
                    "DDO, fakes from tokens": functools.partial(bench.ddo_step, "tokens"),
                    "DDO, fakes from pixels": bench.ddo_step,
                    "DDO, naive": bench.naive_step,
                },
                repeats,
            )
            samplers = medians(
                {
                    "upstream's, guidance 0": bench.upstreams_sampler,
                    "ours": functools.partial(bench.sampler, "tokens"),
                },
                repeats,
            )
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
