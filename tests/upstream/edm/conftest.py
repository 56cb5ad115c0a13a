"""A tiny EDM that pristine upstream trained on a CPU."""

from __future__ import annotations

import pytest

TINY = ["--arch=ddpmpp", "--cbase=8", "--cres=1", "--augment=0.1"]
COMMON = ["--cond=1", "--batch=32", "--tick=1", "--seed=0", "--nosubdir"]


@pytest.fixture(scope="session")
def world(make_world, images, completed):
    def build(world) -> None:
        images(world.data)
        flags = [*TINY, *COMMON, "--duration=0.002", "--lr=0.05", "--snap=1", "--dump=1", "--outdir=base"]
        train = ["-m", "ddo_plugin.checkouts.compat", world.repo / "train.py"]
        completed(world.python(*train, f"--data={world.data}", *flags))
        refset = [f"--network={world.base}", f"--out={world.fakes}", "--count=60", "--steps=4", "--seed=1"]
        completed(world.python("-m", "ddo_plugin", "refset", "make", *refset, PYTHONPATH=str(world.repo)))

    return make_world("edm", "train.py", COMMON, "base/network-snapshot-000002.pkl", build)
