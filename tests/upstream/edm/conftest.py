"""A tiny EDM that pristine upstream trained on a CPU, and runs of the real training script."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

TINY = ["--arch=ddpmpp", "--cbase=8", "--cres=1", "--augment=0.1"]
COMMON = ["--batch=32", "--tick=1", "--seed=0", "--nosubdir"]
CLASSES, COUNT = 3, 96


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_images(path: Path, side: int = 8, labelled: bool = True, channels: int = 1) -> Path:
    """A dataset as dataset_tool.py packs it: noise whose brightness says its class."""
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        labels = []
        for number in range(COUNT):
            pixels = draw.normal(60 + 60 * (number % CLASSES), 15, (side, side, channels)).clip(0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            image.fromarray(pixels.squeeze()).save(buffer, "png")
            archive.writestr(f"{number:06d}.png", buffer.getvalue())
            labels.append([f"{number:06d}.png", number % CLASSES])
        archive.writestr("dataset.json", json.dumps({"labels": labels if labelled else None}))
    return path


@dataclass(frozen=True)
class World:
    """A clone of EDM, data, a base network and a reference set of it."""

    root: Path
    repo: Path

    @property
    def data(self) -> Path:
        return self.root / "data.zip"

    @property
    def base(self) -> Path:
        return self.root / "base/network-snapshot-000002.pkl"

    @property
    def fakes(self) -> Path:
        return self.root / "fakes"

    def python(self, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.root,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            check=False,
        )

    def environment(self, **env: str) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
        return {**os.environ, **threads, "DDO_CACHE": str(self.root / "cache"), "DDO_DEVICE": "cpu", **env}

    def train_command(self, *flags: object, torchrun: str = "") -> list[str]:
        launcher = [f"--torchrun={torchrun}"] if torchrun else []
        own = [f"--data={self.data}", "--cond=1", *COMMON]
        return ["-m", "ddo_plugin", "run", *launcher, str(self.repo), "train.py", "--", *own, *map(str, flags)]

    def train(self, *flags: object, torchrun: str = "") -> subprocess.CompletedProcess[str]:
        """`ddo run` of the real train.py."""
        return self.python(*self.train_command(*flags, torchrun=torchrun))

    def finetune(self, *flags: object, torchrun: str = "") -> subprocess.CompletedProcess[str]:
        ddo = [f"--ddo={self.base}", f"--ddo-fakes={self.fakes}", "--ddo-beta=0.5", "--ddo-alpha=2"]
        return self.train(*ddo, *flags, torchrun=torchrun)


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    return process.stdout


@pytest.fixture(scope="session")
def completed() -> Callable[[subprocess.CompletedProcess[str]], str]:
    """The output of a process that must have succeeded."""
    return done


@pytest.fixture(scope="session")
def images() -> Callable[..., Path]:
    return write_images


@pytest.fixture(scope="session")
def world(checkout, tmp_path_factory: pytest.TempPathFactory) -> World:
    upstream = checkout("edm")
    for needed in ("PIL", "psutil", "requests", "scipy"):
        pytest.importorskip(needed)
    root = tmp_path_factory.mktemp("edm")
    subprocess.run(["git", "clone", "--quiet", str(upstream), str(root / "repo")], check=True)
    world = World(root, root / "repo")
    write_images(world.data)
    flags = [*TINY, *COMMON, "--duration=0.002", "--lr=0.05", "--snap=1", "--dump=1", "--outdir=base"]
    done(world.python("-m", "ddo_plugin.compat", world.repo / "train.py", f"--data={world.data}", "--cond=1", *flags))
    refset = [f"--network={world.base}", f"--out={world.fakes}", "--count=60", "--steps=4", "--seed=1"]
    done(world.python("-m", "ddo_integrations.edm.refset", *refset, PYTHONPATH=str(world.repo)))
    return world
