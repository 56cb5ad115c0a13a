"""Correctness of EDM and EDM2 on a GPU: `python -m benchmarks.gpu.correct_diffusion UPSTREAM CHECKOUT FOLDER`.

A tiny network of upstream's own training goes through short rounds of its training script.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.results import attempt
from benchmarks.gpu.world import ROOT, World, check_all, difference, first_step, write_zip
from ddo_plugin.snapshots.pickles import contents, unpickler

COMPAT = ["-m", "ddo_plugin.checkouts.compat"]
DDO = ["--ddo-beta=0.5", "--ddo-alpha=2"]


@dataclass(frozen=True)
class Kind:
    """What differs between the two upstreams."""

    script: str
    flags: tuple[str, ...]  # of every training
    channels: int
    port: int
    round: tuple[str, ...]  # flags of a round
    resumable: str  # exists when the round can be killed and resumed
    last: str  # the snapshot at the end of a round
    sampler: str
    network_flag: str
    sampling: tuple[str, ...]  # further flags that upstream's sampler and `ddo sample` share
    make_base: Callable[[World, Kind], Path]


def make_edm(world: World, kind: Kind) -> Path:
    """Train EDM's network from scratch."""
    tiny = ["--arch=ddpmpp", "--cbase=8", "--cres=1", "--augment=0.1", "--lr=0.05", "--snap=1", "--dump=1"]
    train = [*COMPAT, world.checkout / "train.py", "--data=data.zip", *kind.flags, *tiny]
    world.python(*train, "--duration=0.002", "--outdir=base")
    return world.root / "base/network-snapshot-000002.pkl"


def make_edm2(world: World, kind: Kind) -> Path:
    """Train EDM2's network from scratch, then scale its weights away from unit norm."""
    tests = ROOT / "tests/upstream"
    train = [*COMPAT, tests / "train_tiny_edm2.py", "--data=data.zip", *kind.flags]
    world.python(*train, "--duration=2048", "--lr=0.05", "--outdir=base", paths=[world.checkout])
    trained = world.root / "base/network-snapshot-0000002-0.050.pkl"
    world.python(*COMPAT, tests / "edm2/rescale.py", trained, world.root / "base.pkl", paths=[world.checkout])
    return world.root / "base.pkl"


KINDS = {
    "edm": Kind(
        "train.py",
        ("--cond=1", "--batch=32", "--tick=1", "--seed=0", "--nosubdir"),
        1,
        29600,
        ("--duration=0.004", "--dump=1", "--lr=3e-4", "--ddo-continue"),
        "network-snapshot-000001.pkl.ddo.json",  # written after the state
        "network-snapshot-000004.pkl",
        "generate",
        "network",
        ("--solver=heun", "--disc=vp", "--schedule=vp", "--scaling=vp", "--S_churn=5"),
        make_edm,
    ),
    "edm2": Kind(
        "train_edm2.py",
        ("--preset=edm2-img64-s", "--batch=128", "--status=1024", "--snapshot=1024", "--checkpoint=1024"),
        3,
        29700,
        ("--duration=4096", "--lr=1e-2", "--ddo-rampup=0"),
        "training-state-0000001.pt",
        "network-snapshot-0000004-0.050.pkl",
        "generate_images",
        "net",
        ("--S_churn=5",),
        make_edm2,
    ),
}


class Part:
    """The checks of one upstream."""

    def __init__(self, upstream: str, checkout: Path, folder: Path):
        self.upstream, self.kind = upstream, KINDS[upstream]
        self.world = World(checkout, folder, self.kind.port)
        self.base = Path()

    def run(self) -> None:
        """Prepare the base network and its fakes, then run all checks side by side."""
        if not attempt(self.upstream, "base network and fakes", self.prepare):
            return
        attempt(self.upstream, "first step", lambda: first_step(self.finetuned("whole")))
        check_all(
            self.upstream,
            {
                "kill and resume": self.resume,
                "NCCL, one rank": lambda: first_step(self.finetuned("nccl", ranks=1)),
                "compiled": lambda: first_step(self.finetuned("compiled", "--ddo-compile")),
                "repeat": lambda: self.against_whole(self.finetuned("repeated")),
                "pristine sampling": self.pristine,
                "pristine sampling, more flags": lambda: self.pristine(*self.kind.sampling),
                "DPM-Solver-v3": self.multistep,
                "refset twice": self.refset_twice,
            },
        )

    def prepare(self) -> Mapping[str, Any]:
        write_zip(self.world.root / "data.zip", self.kind.channels)
        self.base = self.kind.make_base(self.world, self.kind)
        self.refset("fakes")
        return {}

    def refset(self, name: str) -> str:
        """Make a reference set and return the SHA-256 of its images."""
        flags = [f"--network={self.base}", f"--out={name}", "--count=60", "--steps=4", "--seed=1"]
        self.world.python("-m", "ddo_plugin", "refset", "make", f"--checkout={self.world.checkout}", *flags)
        return hashlib.sha256((self.world.root / name / "images.npy").read_bytes()).hexdigest()

    def command(self, name: str, *further: str, ranks: int = 0) -> list[str]:
        """Return the command of a round that writes to the folder `name`."""
        flags = ["--data=data.zip", *self.kind.flags, *self.kind.round, f"--outdir={name}", *further]
        ddo = [f"--ddo={self.base}", "--ddo-fakes=fakes", *DDO]
        return self.world.run(self.kind.script, *flags, *ddo, ranks=ranks)

    def finetuned(self, name: str, *further: str, ranks: int = 0) -> Path:
        """Run a round and return its folder."""
        self.world.python(*self.command(name, *further, ranks=ranks))
        return self.world.root / name

    def weights(self, folder: Path) -> dict[str, torch.Tensor]:
        """Return the weights at the end of a round."""
        path = folder / self.kind.last
        return contents.state_dict(contents.network_node(unpickler.read(path), "ema", path))

    def against_whole(self, folder: Path) -> Mapping[str, Any]:
        """Compare the end of a round with that of the first, uninterrupted round."""
        return difference(self.weights(self.world.root / "whole"), self.weights(folder))

    def refset_twice(self) -> Mapping[str, Any]:
        one, two = self.refset("fakes-2"), self.refset("fakes-3")
        return {"equal": one == two}

    def resume(self) -> Mapping[str, Any]:
        """Kill a round after its first training state, and run the same command again.

        EDM continues with other random numbers by design, EDM2 with the same.
        """
        folder = self.world.root / "killed"
        self.world.kill_once(self.command("killed"), (folder / self.kind.resumable).exists)
        return {**self.against_whole(self.finetuned("killed")), "steps": first_step(folder)["steps"]}

    def pristine(self, *flags: str) -> Mapping[str, Any]:
        """Sample the finetuned network by upstream's own script, without this package, and by `ddo sample`."""
        script, name = Path(__file__).with_name("pristine.py"), f"samples-{len(flags)}"
        network, shared = self.world.root / "whole" / self.kind.last, ["--seeds=0-5", "--steps=4", *flags]
        theirs = [f"--{self.kind.network_flag}={network}", f"--outdir={name}/theirs", *shared]
        printed = self.world.python(script, self.kind.sampler, *theirs, paths=[self.world.checkout])
        self.sample(network, f"{name}/ours", *shared)
        one, other = (pixels(self.world.root / name / way) for way in ("theirs", "ours"))
        return {
            "images": len(one),
            "largest difference to ddo sample": int(np.abs(one - other).max()),
            "distutils stand-in": "stand-in" in printed,
        }

    def sample(self, network: Path, out: str, *flags: str) -> None:
        own = [f"--network={network}", f"--outdir={out}", f"--checkout={self.world.checkout}", *flags]
        self.world.python("-m", "ddo_plugin", "sample", *own)

    def multistep(self) -> Mapping[str, Any]:
        """Sample with DPM-Solver-v3 and statistics that are those of its default, which are then on the GPU."""
        shape = (5, self.kind.channels, 8, 8)
        folder = self.world.root / "0.002_80.0_4_1"
        folder.mkdir()
        np.savez(folder / "l.npz", l=np.ones(shape))
        np.savez(folder / "sb.npz", s=np.zeros(shape), b=np.zeros(shape))
        network = self.world.root / "whole" / self.kind.last
        flags = ["--solver=dpm-solver-v3", "--seeds=0-5", "--steps=6"]
        self.sample(network, "multistep/default", *flags)
        self.sample(network, "multistep/statistics", *flags, f"--statistics={folder}")
        one, other = (pixels(self.world.root / "multistep" / way) for way in ("default", "statistics"))
        return {"largest difference": int(np.abs(one - other).max())}


def pixels(folder: Path) -> np.ndarray:
    """Return all images of a folder."""
    return np.stack([np.asarray(Image.open(path), np.int16) for path in sorted(folder.rglob("*.png"))])


@click.command()
@click.argument("upstream", type=click.Choice(list(KINDS)))
@click.argument("checkout", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(upstream: str, checkout: Path, folder: Path) -> None:
    """Check EDM or EDM2 with a tiny network."""
    Part(upstream, checkout.resolve(), folder.resolve()).run()


if __name__ == "__main__":
    main()
