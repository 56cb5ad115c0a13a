"""Samples per second of ways to sample a network: `python -m benchmarks.gpu.speed_refset NAME FOLDER`.

NAME is edm, edm2-s or var-dDEPTH; the checkout is on the path, and FOLDER holds the files of make_networks.py.
Upstream's sampler and the generator of `ddo refset make` run in one process, one batch at a time. Each result is
recorded at once, the slow compilations last. For EDM, `ddo refset make` and pristine generate.py are also timed as
commands, with all that they write: each runs with few and with many images, and the difference of the times leaves out
the start of the process.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

from benchmarks.gpu import measure
from benchmarks.gpu.make_networks import SIDES, VAE, VAE_WIDTH
from benchmarks.gpu.measure import DEVICE, ON_CPU
from benchmarks.gpu.results import attempt, record
from benchmarks.gpu.world import World
from ddo_plugin import Reference, SampleGenerators
from ddo_plugin.checkouts import compat
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import ScoringGenerator

FEW, MANY, BATCH = (4, 12, 4) if ON_CPU else (128, 640, 128)  # of the commands
STEPS = {"edm": 2, "edm2": 2} if ON_CPU else {"edm": 18, "edm2": 8}  # EDM2's default of 32 would take too long
REPEATS, SECONDS = (1, 60) if ON_CPU else (3, 12)
FP32, FP16, BF16, COMPILE = "--precision=fp32", "--precision=fp16", "--precision=bf16", "--compile"


class Way(NamedTuple):
    """A batch size, and options of the sampler."""

    batch: int
    flags: tuple[str, ...]


def ways(upstream: str) -> list[Way]:
    """Return the ways to sample, the most important first. Without a GPU, EDM and EDM2 have no fp16."""
    if ON_CPU:
        return [Way(2, (FP32,)), Way(4, (FP32,)), Way(2, (FP32, COMPILE) if upstream != "var" else (BF16,))]
    usual, large = {"edm": (128, 512), "edm2": (64, 256), "var": (25, 100)}[upstream]
    first, second = (FP16, FP32) if upstream == "edm2" else (FP32, FP16)  # the precision of upstream comes first
    found = [Way(batch, (precision,)) for batch in (usual, large) for precision in (first, second)]
    if upstream == "var":
        return [*found, Way(usual, (BF16,))]
    return [*found, *(Way(usual, (precision, COMPILE)) for precision in (first, second))]


class Part:
    """One network in upstream's sampler and in ours."""

    def __init__(self, name: str, folder: Path):
        self.name, self.upstream, self.folder = name, name.split("-")[0], folder
        self.file = folder / (f"{name.replace('-', '_')}.pth" if self.upstream == "var" else f"{name}.pkl")
        self.steps = STEPS.get(self.upstream)

    @cache  # noqa: B019  # a part lives as long as the process
    def generator(self, flags: tuple[str, ...]) -> Any:
        if self.upstream == "var":
            return self._tokens(flags[0].partition("=")[2])
        hook = plugins.manager().hook
        offered = list(plugins.collect(hook.ddo_generator_options(upstream=self.upstream)))
        arguments = [f"--steps={self.steps}", *flags]
        options = click.Command(self.name, params=offered).make_context(self.name, arguments).params
        return hook.ddo_generator(upstream=self.upstream, source=str(self.file), options=options)

    def _tokens(self, precision: str) -> Any:
        """Return a generator of VAR. Those of all precisions share the networks, whose tokenizer may be tiny."""
        from ddo_integrations.var.generator import Sampler, TokenGenerator

        sampler = Sampler(cfg=0, top_k=0, top_p=0, more_smooth=False, precision=precision, through_pixels=False)
        vae, var = self._networks
        return TokenGenerator(var, vae, self.folder / VAE, Reference(var, str(self.file), ""), sampler)

    @cached_property
    def _networks(self) -> tuple[Any, Any]:
        from models import build_vae_var

        from ddo_integrations.var.networks import make_exact

        depth = int(self.name.removeprefix("var-d"))
        vae, var = build_vae_var(device=DEVICE, patch_nums=SIDES, ch=VAE_WIDTH, depth=depth)
        for network, file in ((vae, self.folder / VAE), (var, self.file)):
            network.load_state_dict(torch.load(file, map_location="cpu"))
            network.eval()
        make_exact(var)
        return vae, var

    def ours(self, way: Way) -> None:
        """Sample a batch as `ddo refset make` does."""
        generator = self.generator(way.flags)
        labels = torch.arange(way.batch) % generator.classes
        samples, labels = generator.sample(SampleGenerators(0, range(way.batch), generator.device), labels)
        if isinstance(generator, ScoringGenerator):
            generator.logp(samples, labels)

    @torch.no_grad()
    def theirs(self, way: Way) -> None:
        """Sample a batch as upstream's script does, without writing images."""
        generator = self.generator(way.flags)
        labels = torch.arange(way.batch, device=DEVICE) % generator.classes
        if self.upstream == "var":
            generator.var.autoregressive_infer_cfg(way.batch, labels, g_seed=0, cfg=0.0)
            return
        streams = SampleGenerators(0, range(way.batch), generator.device)
        script = importlib.import_module("generate" if self.upstream == "edm" else "generate_images")
        conditions = torch.eye(generator.classes, device=DEVICE)[labels]
        script.edm_sampler(generator.network, streams.randn(*generator.shape), conditions, num_steps=self.steps)

    def measured(self, sample: Callable[[Way], None], way: Way) -> dict[str, Any]:
        """Return samples per second. The first calls, which compile the network, do not count."""
        start = time.perf_counter()
        sample(way)
        first = time.perf_counter() - start
        timing = measure.time_ways({"batch": lambda: sample(way)}, REPEATS, SECONDS)
        found = {"images/s": round(way.batch / timing.ms["batch"] * 1000, 2), "first batch s": round(first, 1)}
        return found | {"batch": way.batch, "steps": self.steps, "turns": timing.turns}

    def run(self) -> None:
        part = f"speed refset {self.name}"
        record(part, "machine", **measure.machine())
        chosen = ways(self.upstream)
        attempt(part, "upstream's sampler", lambda: self.measured(self.theirs, chosen[0]))
        for way in chosen:
            name = f"{' '.join(way.flags)}, batches of {way.batch}"
            attempt(part, name, partial(self.measured, self.ours, way))
            if way == chosen[0]:
                attempt(part, "waits", lambda: {"places": measure.waits(lambda: self.ours(chosen[0]))})
            measure.release()
        if self.upstream == "edm":
            attempt(part, "commands", Commands(self.folder, self.file).compare)


class Commands:
    """`ddo refset make` and generate.py as commands."""

    def __init__(self, folder: Path, network: Path):
        self.network = network
        self.world = World(Path(str(importlib.import_module("training").__path__[0])).parent, folder / "refset", 29900)

    def ours(self, count: int) -> None:
        flags = [f"--network={self.network}", f"--out=set-{count}", f"--count={count}"]
        sampling = [f"--steps={STEPS['edm']}", f"--batch={BATCH}", f"--checkout={self.world.checkout}"]
        self.world.python("-m", "ddo_plugin", "refset", "make", *flags, *sampling)

    def theirs(self, count: int) -> None:
        flags = [f"--network={self.network}", f"--outdir=png-{count}", f"--seeds=0-{count - 1}"]
        sampling = [f"--steps={STEPS['edm']}", f"--batch={BATCH}"]
        script = Path(__file__).with_name("pristine.py")
        self.world.python(script, "generate", *flags, *sampling, paths=[self.world.checkout])

    def compare(self) -> dict[str, Any]:
        """Return images per second of both."""
        rates = {}
        for name, way in {"ddo refset make": self.ours, "generate.py": self.theirs}.items():
            seconds = []
            for count in (FEW, MANY):
                start = time.perf_counter()
                way(count)
                seconds.append(time.perf_counter() - start)
            rates[name] = {
                "images/s": round((MANY - FEW) / (seconds[1] - seconds[0]), 2),
                "start s": round(seconds[0], 2),
            }
        return {"rates": rates, "steps": STEPS["edm"], "batch": BATCH}


@click.command()
@click.argument("name")
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def main(name: str, folder: Path) -> None:
    """Measure all ways to sample one network."""
    compat.apply()
    Part(name, folder.resolve()).run()


if __name__ == "__main__":
    main()
