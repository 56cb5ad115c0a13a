"""Measure the cost of a set of tokens in VAR, by the part.

The command is `DDO_DEVICE=cpu OMP_NUM_THREADS=1 python -m benchmarks.var_refset CHECKOUT`. `ddo refset make` draws
tokens, takes them through pixels with --through-pixels, and computes their log-probabilities. Images have 256 × 256
pixels, the networks have random weights, and the image tokenizer has its full size. The first table counts the
multiplications and additions of the published networks, without computing them. The second has the CPU seconds of a
network with few blocks.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.make_networks import PUBLISHED_SIDES as SIDES
from ddo_plugin import Reference, SampleGenerators
from ddo_plugin.checkouts import compat

LENGTH = sum(side * side for side in SIDES)
CHANNELS = 160  # of the published image tokenizer
PUBLISHED = (16, 20, 24, 30)  # depths


def build(depth: int, device: str) -> tuple[Any, Any]:
    """Return upstream's image tokenizer and network with random weights."""
    from models import build_vae_var

    with contextlib.redirect_stdout(io.StringIO()):  # upstream prints a description of each network
        vae, var = build_vae_var(device=device, patch_nums=SIDES, ch=CHANNELS, depth=depth)
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    for network in (vae, var):
        network.eval().requires_grad_(False)
    return vae, var


def seconds(depth: int, batch: int) -> dict[str, float]:
    """Return the CPU seconds of each part of `ddo refset make` for an image."""
    from ddo_integrations.var.draw import through_pixels
    from ddo_integrations.var.generator import Sampler, TokenGenerator

    vae, var = build(depth, "cpu")
    sampler = Sampler(cfg=0, top_k=0, top_p=0, more_smooth=False, precision="fp32", through_pixels=False)
    with tempfile.NamedTemporaryFile() as file:
        generator = TokenGenerator(var, vae, Path(file.name), Reference(var, "random", ""), sampler)
    labels = torch.arange(batch)
    tokens, _ = generator.sample(SampleGenerators(0, range(batch)), labels)
    f_hat = torch.randn(batch, var.Cvae, SIDES[-1], SIDES[-1])
    parts: dict[str, Callable[[], object]] = {
        "drawing tokens": lambda: generator.sample(SampleGenerators(0, range(batch)), labels),
        "log-probabilities": lambda: generator.logp(tokens, labels),
        "--through-pixels": lambda: through_pixels(vae, f_hat),
    }
    found = {}
    for name, part in parts.items():
        start = time.process_time()
        part()
        found[name] = (time.process_time() - start) / batch
    return found


def operations(depth: int) -> tuple[float, float]:
    """Return the multiplications and additions, in 10¹², of a forward over all tokens and of the round trip."""
    vae, var = build(depth, "meta")
    labels, inputs = torch.zeros(1, dtype=torch.long, device="meta"), torch.empty(1, LENGTH - 1, 32, device="meta")
    f_hat = torch.empty(1, 32, SIDES[-1], SIDES[-1], device="meta")
    counts = []
    for part in (lambda: var(labels, inputs), lambda: vae.img_to_idxBl(vae.fhat_to_img(f_hat))):
        with FlopCounterMode(display=False) as counter:
            part()
        counts.append(counter.get_total_flops() / 1e12)
    return counts[0], counts[1]


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--depth", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True)
def main(checkout: Path, depth: int, batch: int) -> None:
    """Print the cost of VAR's token sets."""
    sys.path.insert(0, str(checkout.resolve()))
    compat.apply()
    print("| depth | forward, 10¹² operations | --through-pixels, 10¹² operations |\n|---|---|---|")
    for published in PUBLISHED:
        forward, round_trip = operations(published)
        print(f"| {published} | {forward:.2f} | {round_trip:.2f} |")
    print(f"\n| part, depth {depth}, batch {batch} | CPU seconds per image |\n|---|---|")
    for name, cost in seconds(depth, batch).items():
        print(f"| {name} | {cost:.2f} |")


if __name__ == "__main__":
    main()
