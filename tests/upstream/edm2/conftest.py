"""A tiny EDM2 that pristine upstream trained on a CPU, its weights then scaled away from unit norm."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
COMMON = ["--preset=edm2-img64-s", "--batch=128", "--status=1024", "--snapshot=1024", "--checkpoint=1024"]


@pytest.fixture(scope="session")
def world(make_world, images, completed):
    def build(world) -> None:
        images(world.data, channels=3)
        upstream, compat = {"PYTHONPATH": str(world.repo)}, ["-m", "ddo_plugin.checkouts.compat"]
        driver = [*compat, FOLDER.parent / "train_tiny_edm2.py", f"--data={world.data}", *COMMON]
        completed(world.python(*driver, "--outdir=base", "--duration=2048", "--lr=0.05", **upstream))
        trained = world.root / "base/network-snapshot-0000002-0.050.pkl"
        completed(world.python(*compat, FOLDER / "rescale.py", trained, world.base, **upstream))
        refset = [f"--network={world.base}", f"--out={world.fakes}", "--count=60", "--steps=4", "--seed=1"]
        completed(world.python("-m", "ddo_plugin", "refset", "make", *refset, **upstream))

    return make_world("edm2", "train_edm2.py", COMMON, "base.pkl", build)


@pytest.fixture(scope="session")
def run_pristine(completed) -> Callable[..., str]:
    """A function: a world, the name of an upstream script and its arguments -> what it printed without our package."""

    def run(world, script: str, *arguments: object, **env: str) -> str:
        path = os.pathsep.join([str(world.repo), *filter(None, [env.pop("PYTHONPATH", "")])])
        return completed(world.python(FOLDER / "pristine.py", script, *arguments, PYTHONPATH=path, **env))

    return run


@pytest.fixture
def pristine(world, run_pristine) -> Callable[..., str]:
    return functools.partial(run_pristine, world)
