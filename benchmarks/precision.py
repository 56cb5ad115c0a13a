"""Measure how half precision and torch.compile change EDM's images: `python -m benchmarks.precision CHECKOUT PKL`.

The same seeds are sampled in each way. Upstream's networks use fp16 on a GPU only; here hooks around the inner network
convert its input and output, so that fp16 and bf16 can be compared on a CPU too.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from ddo_plugin import SampleGenerators
from ddo_plugin.checkouts import compat


@contextlib.contextmanager
def computing_in(dtype: torch.dtype, inner: torch.nn.Module) -> Iterator[None]:
    """Let the inner network compute in this dtype."""
    before = inner.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype), *inputs[1:]))
    after = inner.register_forward_hook(lambda _module, _inputs, output: output.to(torch.float32))
    try:
        yield
    finally:
        before.remove()
        after.remove()


def load(network: Path, *flags: str) -> Any:
    """Return the network as a generator."""
    from ddo_integrations.edm.plugin import integration

    own = click.Command("options", params=list(integration.generator_options()))
    return integration.generator(str(network), own.make_context("", list(flags)).params)


def images(generator: Any, count: int, batch: int) -> Tensor:
    """Return [count] images of the first seeds, as signed numbers."""
    parts = []
    for first in range(0, count, batch):
        samples, _ = generator.sample(SampleGenerators(0, range(first, first + batch), generator.device), None)
        parts.append(samples.cpu().to(torch.int16))
    return torch.cat(parts)


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("network", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=256, show_default=True, help="Number of images.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
def main(checkout: Path, network: Path, count: int, batch: int) -> None:
    """Print by how many grey levels the images of each way differ from those in fp32."""
    sys.path.insert(0, str(checkout.resolve()))
    compat.apply()
    source = load(network, "--precision=fp32")
    full = images(source, count, batch)
    print("| network | mean difference | largest difference | pixels that differ |\n|---|---|---|---|")

    def compare(name: str, other: Tensor) -> None:
        apart = (other - full).abs()
        share = (apart > 0).float().mean()
        print(f"| {name} | {apart.float().mean():.4f} | {apart.max()} | {share:.2%} |", flush=True)

    for name, dtype in {"bf16": torch.bfloat16, "fp16": torch.float16}.items():
        with computing_in(dtype, source.network.model):
            compare(name, images(source, count, batch))
    compare("fp32, other random seeds", full.roll(1, 0))
    compare("fp32, compiled", images(load(network, "--precision=fp32", "--compile"), count, batch))


if __name__ == "__main__":
    main()
