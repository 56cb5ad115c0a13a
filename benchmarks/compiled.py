"""Time of a DDO step with `--ddo-compile`, and with weights in the channels-last memory format, on a CPU.

`DDO_DEVICE=cpu OMP_NUM_THREADS=1 python -m benchmarks.compiled UPSTREAM CHECKOUT`. The networks have the depth of those
of the paper and fewer channels. The unit is CPU time, which other programs hardly affect.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click
import torch

from benchmarks.cpu_time import medians
from benchmarks.gpu import make_networks, session
from benchmarks.gpu.measure import ON_CPU
from benchmarks.gpu.speed_diffusion import Bench
from ddo_plugin.base.environment import free_port
from ddo_plugin.checkouts import compat

CHANNELS = {"edm": 32, "edm2": 64}
NAMES = {"edm": "edm", "edm2": "edm2-s"}  # as the GPU kit calls the networks


def write_network(upstream: str, channels: int, folder: Path) -> None:
    """Write DDPM++ at 32×32 or EDM2 at 64×64 with this number of channels, as the GPU kit writes it."""
    make_networks.SONG["model_channels"] = channels
    make_networks.EDM2 = {"edm2-s": {**make_networks.EDM2["edm2-s"], "model_channels": channels}}
    make_networks.EDM2_TINY = {}
    {"edm": make_networks.edm, "edm2": make_networks.edm2}[upstream](folder)


def channels_last(bench: Bench, repeats: int) -> dict[str, float]:
    """Return the median seconds of steps in both memory formats, and of the first again to show the noise."""
    seconds = {}
    formats = {"": torch.contiguous_format, "channels-last": torch.channels_last, "again": torch.contiguous_format}
    for name, memory_format in formats.items():
        for network in (bench.net, bench.reference):
            network.to(memory_format=memory_format)
        bench.images = bench.images.contiguous(memory_format=memory_format)
        seconds.update(medians({f"not compiled, {name}".strip(", "): bench.ddo_step}, repeats))
    return seconds


@click.command()
@click.argument("upstream", type=click.Choice(list(NAMES)))
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--channels", type=click.IntRange(min=8), help="Base number of channels.  [default: 32; EDM2: 64]")
@click.option("--batch", type=click.IntRange(min=1), default=2, show_default=True, help="Real images of a step.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Steps to measure.")
def main(upstream: str, checkout: Path, channels: int | None, batch: int, repeats: int) -> None:
    """Print the CPU seconds of a DDO step: compiled, not compiled, and in the channels-last memory format."""
    if not ON_CPU:
        raise click.UsageError("this benchmark is for a CPU; set DDO_DEVICE=cpu")
    os.environ.setdefault("MASTER_PORT", str(free_port()))
    sys.path.insert(0, str(checkout.resolve()))
    compat.apply()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")  # so that compiling is measured, too
        channels = channels or CHANNELS[upstream]
        write_network(upstream, channels, folder)
        bench = Bench(NAMES[upstream], folder)
        bench.set_batch(batch)
        formats = channels_last(bench, repeats)
        made = bench.compile()
        seconds = medians({"not compiled": bench.eager_step, "compiled": bench.ddo_step}, repeats)
        size = f"{session.parameters(bench.net) / 1e6:.1f} M parameters, {channels} channels, {batch} + {batch} images"
        print(f"\n{upstream}: {size}; {', '.join(f'{name} {value}' for name, value in made.items())}")
        for measured in (seconds, formats):
            first = next(iter(measured.values()))
            print("\n| step | CPU seconds | ratio |\n|---|---|---|")
            for name, value in measured.items():
                print(f"| {name} | {value:.3f} | {value / first:.3f} |")


if __name__ == "__main__":
    main()
