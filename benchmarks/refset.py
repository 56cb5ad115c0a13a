"""Compare `ddo refset make` with pristine generate.py and dataset_tool.py: `python -m benchmarks.refset CHECKOUT`.

Both ways sample the same number of images from the same random EDM network, one after the other, on the command line.
A run within this process measures the share of the time that is not spent in the network. Then upstream's sampler and
ours take turns within this process, with several batch sizes, and compiled.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.precision import load
from ddo_plugin.checkouts import compat

BATCHES, TURNS = (16, 64, 128), 2

MAKE_NETWORK = """
import pickle, sys, torch
from training.networks import EDMPrecond
torch.manual_seed(0)
sizes = dict(model_channels=int(sys.argv[2]), channel_mult=[1, 2], num_blocks=1, attn_resolutions=[16])
net = EDMPrecond(32, 3, label_dim=10, model_type="SongUNet", **sizes)
for parameter in net.parameters():
    parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
pickle.dump({"ema": net.eval().requires_grad_(False)}, open(sys.argv[1], "wb"))
"""


def run(checkout: Path, *argv: object) -> float:
    """Return the processor seconds of a Python command, which other work on the machine does not affect."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(checkout), "DDO_DEVICE": "cpu", "MASTER_PORT": str(port)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *map(str, argv)], env=env, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def outside_the_network(checkout: Path, network: Path, out: Path, count: int, steps: int) -> float:
    """Return the share of time outside the network's forward, from the loaded network to the finished set."""
    sys.path.insert(0, str(checkout))
    compat.apply()
    from ddo_plugin.base.rank_group import Ranks
    from ddo_plugin.sampling import labels
    from ddo_plugin.sampling.refsets import make as refset

    source = load(network, f"--steps={steps}")
    calls: list[float] = []
    source.network.register_forward_pre_hook(lambda *_: calls.append(-time.perf_counter()))
    source.network.register_forward_hook(lambda *_: calls.append(time.perf_counter()))
    start = time.perf_counter()
    numbers = labels.balanced_labels(count, source.classes)
    refset.make(source, out, Ranks(), count=count, seed=0, labels=numbers, batch=source.batch)
    return 1 - sum(calls) / (time.perf_counter() - start)


def taking_turns(network: Path, steps: int) -> dict[str, float]:
    """Return the images per processor second of each way to sample a batch: the median of the turns."""
    import torch
    from generate import edm_sampler  # type: ignore[import-not-found]

    from ddo_plugin import SampleGenerators

    eager, compiled = load(network, f"--steps={steps}"), load(network, f"--steps={steps}", "--compile")

    @torch.no_grad()
    def upstream(batch: int) -> None:
        noise, classes = torch.randn(batch, *eager.shape), torch.eye(eager.classes)[torch.arange(batch) % eager.classes]
        edm_sampler(eager.network, noise, classes, num_steps=steps)

    def ours(generator: Any, batch: int) -> None:
        generator.sample(SampleGenerators(0, range(batch)), torch.arange(batch) % eager.classes)

    ways = {
        "the sampler of generate.py, batches of 64": (64, partial(upstream, 64)),
        **{f"ours, batches of {batch}": (batch, partial(ours, eager, batch)) for batch in BATCHES},
        "ours, compiled, batches of 64": (64, partial(ours, compiled, 64)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    ours(compiled, 64)  # compiles the network
    for _ in range(TURNS):
        for name, (batch, sample) in ways.items():
            start = time.process_time()
            sample()
            rates[name].append(batch / (time.process_time() - start))
    return {name: statistics.median(found) for name, found in rates.items()}


def theirs(checkout: Path, network: Path, root: Path, count: int, steps: int) -> float:
    """Return the seconds of pristine generate.py followed by dataset_tool.py."""
    flags = [f"--network={network}", f"--outdir={root / 'png'}", f"--seeds=0-{count - 1}", f"--steps={steps}"]
    sampling = run(checkout, "-m", "ddo_plugin.checkouts.compat", checkout / "generate.py", *flags, "--batch=64")
    tool = ["-m", "ddo_plugin.checkouts.compat", checkout / "dataset_tool.py"]
    return sampling + run(checkout, *tool, f"--source={root / 'png'}", f"--dest={root / 'set.zip'}")


def ours(checkout: Path, network: Path, root: Path, count: int, steps: int) -> float:
    """Return the seconds of `ddo refset make`."""
    flags = [f"--network={network}", f"--out={root / 'set'}", f"--count={count}", f"--steps={steps}", "--batch=64"]
    return run(checkout, "-m", "ddo_plugin", "refset", "make", f"--checkout={checkout}", *flags)


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=128, show_default=True, help="Number of samples.")
@click.option("--steps", type=click.IntRange(min=1), default=6, show_default=True, help="Steps of the sampler.")
@click.option("--channels", type=click.IntRange(min=16), default=32, show_default=True, help="Channels of the network.")
def main(checkout: Path, count: int, steps: int, channels: int) -> None:
    """Print the processor time of both ways, from the start of Python, and the share outside the network."""
    with tempfile.TemporaryDirectory() as folder:
        root, repo = Path(folder), checkout.resolve()
        network = root / "network.pkl"
        run(repo, "-c", MAKE_NETWORK, network, channels)
        them, us = theirs(repo, network, root, count, steps), ours(repo, network, root, count, steps)
        share = outside_the_network(repo, network, root / "again", count // 2, steps)
        rates = taking_turns(network, steps)
    print(f"{count} images of 3×32×32, {steps} steps, a network of {channels} channels:\n")
    print("| way | images per processor second | time |\n|---|---|---|")
    print(f"| generate.py and dataset_tool.py | {count / them:.2f} | 1 |")
    print(f"| ddo refset make | {count / us:.2f} | {us / them:.2f} |")
    print(f"\noutside the network: {share:.1%}\n\n| way | images per processor second |\n|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.2f} |")


if __name__ == "__main__":
    main()
