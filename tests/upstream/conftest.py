"""Checkouts of the upstreams, where this machine has them, and runs of their real training scripts."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import upstreams
from tests.processes import run_python

CLASSES, COUNT = 3, 96
DETECTOR_URL = (
    "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/metrics/inception-2015-12-05.pkl"
)
MEAN_DETECTOR = """
import torch

class Detector(torch.nn.Module):
    def forward(self, images, return_features):
        features = torch.zeros(len(images), 2048)
        features[:, 0] = images.to(torch.float32).mean(dim=(1, 2, 3))
        return features
"""


@dataclass(frozen=True)
class World:
    """A clone of an upstream, data, a base network and a reference set of it."""

    root: Path
    script: str  # upstream's training script
    flags: Sequence[str]  # for every run
    base: Path
    data: Path
    data_flag: str = "--data"
    variables: Mapping[str, str] = field(default_factory=dict)  # of the environment of every process

    @property
    def repo(self) -> Path:
        return self.root / "repo"

    @property
    def fakes(self) -> Path:
        """Of an upstream whose fakes are made ahead of time."""
        return self.root / "fakes"

    def python(self, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        return run_python(arguments, cwd=self.root, env=self.environment(**env))

    def environment(self, **env: str) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
        own = {**threads, "DDO_CACHE": str(self.root / "cache"), "DDO_DEVICE": "cpu"}
        return {**os.environ, **own, **self.variables, **env}

    def train_command(self, *flags: object, torchrun: str = "") -> list[str]:
        launcher = [f"--torchrun={torchrun}"] if torchrun else []
        return ["-m", "ddo_plugin", "run", *launcher, str(self.repo), self.script, "--", *self._own(flags)]

    def train(self, *flags: object, torchrun: str = "") -> subprocess.CompletedProcess[str]:
        """`ddo run` of the real training script."""
        return self.python(*self.train_command(*flags, torchrun=torchrun))

    def train_pristine(self, *flags: object, ranks: int = 1, **env: str) -> subprocess.CompletedProcess[str]:
        """The training script as upstream ships it, with nothing but compat."""
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
        script = ["-m", "ddo_plugin.checkouts.compat", self.repo / self.script]
        return self.python(*launcher, *script, *self._own(flags), **env)

    def finetune(self, *flags: object, torchrun: str = "") -> subprocess.CompletedProcess[str]:
        fakes = [f"--ddo-fakes={self.fakes}"] if self.fakes.exists() else []
        ddo = [f"--ddo={self.base}", *fakes, "--ddo-beta=0.5", "--ddo-alpha=2"]
        return self.train(*ddo, *flags, torchrun=torchrun)

    def _own(self, flags: Sequence[object]) -> list[str]:
        return [f"{self.data_flag}={self.data}", *self.flags, *map(str, flags)]


def clone(checkout: Path, to: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(checkout), str(to)], check=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_images(path: Path, side: int = 8, labelled: bool = True, channels: int = 1, count: int = COUNT) -> Path:
    """A dataset as dataset_tool.py packs it: noise whose brightness says its class."""
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        labels = []
        for number in range(count):
            pixels = draw.normal(60 + 60 * (number % CLASSES), 15, (side, side, channels)).clip(0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            image.fromarray(pixels.squeeze()).save(buffer, "png")
            archive.writestr(f"{number:06d}.png", buffer.getvalue())
            labels.append([f"{number:06d}.png", number % CLASSES])
        archive.writestr("dataset.json", json.dumps({"labels": labels if labelled else None}))
    return path


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
    return process.stdout


@pytest.fixture(scope="session")
def completed() -> Callable[[subprocess.CompletedProcess[str]], str]:
    """The output of a process that must have succeeded."""
    return done


@pytest.fixture(scope="session")
def images() -> Callable[..., Path]:
    return write_images


@pytest.fixture
def one_image(world, tmp_path: Path) -> Callable[[str], Path]:
    """A function: name -> a dataset of this name that holds nothing but the last image of the world's data."""

    def write(name: str) -> Path:
        with zipfile.ZipFile(world.data) as source, zipfile.ZipFile(tmp_path / name, "w") as archive:
            image, label = json.loads(source.read("dataset.json"))["labels"][-1]
            archive.writestr(image, source.read(image))
            archive.writestr("dataset.json", json.dumps({"labels": [[image, label]]}))
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A clone of an upstream's checkout, by name: the checkout itself is left alone. Skips where there is none."""
    folder = upstreams()
    clones: dict[str, Path] = {}

    def find(name: str) -> Path:
        if not (folder / name).is_dir():
            pytest.skip(f"no checkout of {name} in {folder}")
        if name not in clones:
            clones[name] = tmp_path_factory.mktemp("checkout") / name
            clone(folder / name, clones[name])
        return clones[name]

    return find


@pytest.fixture(scope="session")
def make_world(checkout, shared, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """A function: upstream's name, its script, flags for every run, where the base will be, what builds it -> a world.

    A test run builds it once; each of pytest's workers has a copy, in which its tests may write. Without what builds
    it, the world has a clone and no data.
    """
    nvlabs = ("PIL", "psutil", "requests", "scipy")

    def make(
        name: str,
        script: str,
        flags: Sequence[str],
        base: str,
        build: Callable[[World], None] | None = None,
        data: str = "data.zip",
        packages: Sequence[str] = nvlabs,
        **options: Any,
    ) -> World:
        upstream = checkout(name)
        for needed in packages:
            pytest.importorskip(needed)

        def world_in(root: Path) -> World:
            return World(root, script, flags, root / base, root / data, **options)

        def build_in(root: Path) -> None:
            clone(upstream, root / "repo")
            if build:
                build(world_in(root))

        root = tmp_path_factory.mktemp(name)
        if build:
            shutil.copytree(shared(f"world-{name}", build_in), root, symlinks=True, dirs_exist_ok=True)
        else:
            build_in(root)
        return world_in(root)

    return make


@pytest.fixture(scope="session")
def snapshots(checkout, completed, shared) -> Callable[[str], Path]:
    """A function: upstream's name -> the folder of tiny snapshots that its own classes wrote."""

    def folder(name: str) -> Path:
        root = checkout(name)
        for needed in ("PIL", "scipy", "requests"):
            pytest.importorskip(needed)
        env = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        make = Path(__file__).with_name("make_snapshots.py")
        return shared(f"snapshots-{name}", lambda out: completed(run_python([make, name, out], env=env)))

    return folder


@pytest.fixture(scope="session")
def gradients(completed, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A function: upstream's name, its world, ranks, accumulation rounds, noise -> all gradients in one vector."""
    torch = pytest.importorskip("torch")
    script, folder = Path(__file__).with_name("gradients.py"), tmp_path_factory.mktemp("gradients")

    def compute(upstream: str, world: World, ranks: int, chunks: int, noise: str) -> Any:
        out = folder / f"{upstream}-{ranks}-{chunks}-{noise}.pt"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
        arguments = [script, upstream, world.base, world.fakes, out, chunks, noise]
        completed(world.python(*launcher, *arguments, PYTHONPATH=str(world.repo)))
        return torch.cat([gradient.flatten() for gradient in torch.load(out)])

    return compute


@pytest.fixture(scope="session")
def detector() -> Callable[..., dict[str, str]]:
    """A function: folder -> the environment in which upstream finds a stand-in for its Inception network there.

    It lies where the download would be cached; unless given other source, its only feature is an image's mean.
    """

    def make(root: Path, source: str = MEAN_DETECTOR) -> dict[str, str]:
        (root / "stand_in_detector.py").write_text(source)
        cached = root / "cache/downloads" / f"{hashlib.md5(DETECTOR_URL.encode()).hexdigest()}_detector.pkl"
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(b"cstand_in_detector\nDetector\n(tR.")  # a call of the class
        return {"DNNLIB_CACHE_DIR": str(root / "cache"), "PYTHONPATH": str(root)}

    return make


@pytest.fixture(scope="session")
def assert_ends_quietly() -> Callable[..., None]:
    """A function: world, flags of a round, a file that it writes, signal: interrupt the round once the file is there.

    It must end with the status of a shell and one line, and leave no incomplete file under a final name.
    """

    def check(world: World, flags: Sequence[str], written: Path, number: int) -> None:
        command = [sys.executable, *world.train_command(f"--ddo={world.base}", *flags)]
        with (world.root / "signal.out").open("w+") as out, (world.root / "signal.err").open("w+") as err:
            process = subprocess.Popen(command, cwd=world.root, env=world.environment(), stdout=out, stderr=err)
            while not written.exists():
                assert process.poll() is None, Path(err.name).read_text()
                time.sleep(0.02)
            process.send_signal(number)
            assert process.wait(120) == 128 + number
        both = Path(out.name).read_text() + Path(err.name).read_text()
        assert "Traceback" not in both
        assert both.count("Interrupted by") == 1
        assert "Aborted" not in both

    return check


def read_refusal(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 2, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    lines = [line for line in process.stderr.strip().splitlines() if not line.startswith("ddo: ")]  # those inform
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="session")
def refused() -> Callable[[subprocess.CompletedProcess[str]], str]:
    """The one line that the user of a refused process reads."""
    return read_refusal


@pytest.fixture
def legacy(world) -> Callable[[str], Any]:
    """A function: file in tests/legacy/data -> what version 0.1.0 stored of a round, as if it were of this world."""
    fills = {"@FOLDER@": str(world.root), "@REFERENCE@": hashlib.sha256(world.base.read_bytes()).hexdigest()}
    if world.fakes.exists():
        fills["@FAKES@"] = hashlib.sha256((world.fakes / "images.npy").read_bytes()).hexdigest()

    def read(name: str) -> Any:
        text = (Path(__file__).parents[1] / "legacy/data" / name).read_text()
        for placeholder, value in fills.items():
            text = text.replace(placeholder, value)
        return json.loads(text)

    return read


@pytest.fixture
def attempt(world, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Start a round with these flags; returns the line that refuses it. The test's module says its DURATION."""

    def start(*flags: object, **replaced: object) -> str:
        out = tmp_path / "out"
        pieces = {"ddo": world.base, "ddo_fakes": world.fakes} | replaced
        ddo = [f"--{name.replace('_', '-')}={value}" for name, value in pieces.items() if value is not None]
        line = read_refusal(world.train(f"--outdir={out}", f"--duration={request.module.DURATION}", *ddo, *flags))
        assert not out.exists()
        return line

    return start


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def truncated_fakes(world: World, folder: Path) -> Path:
    copy = folder / "truncated"
    shutil.copytree(world.fakes, copy)
    written(copy / "images.npy", (world.fakes / "images.npy").read_bytes()[:-10])
    return copy


# What no upstream's script may start with: flags, what replaces reference and fakes, what the refusal says.
BAD_INPUTS: dict[str, Callable[[World, Path], tuple[list[str], dict[str, Any], str]]] = {
    "a missing network": lambda world, folder: ([], {"ddo": folder / "none.pkl"}, "none.pkl: no such file"),
    "a folder for a network": lambda world, folder: ([], {"ddo": folder}, "is a folder; pass one of the files in it"),
    "an empty name": lambda *_: ([], {"ddo": ""}, "--ddo: the value is empty"),
    "no pickle": lambda world, folder: ([], {"ddo": written(folder / "text.pkl", b"<html>404</html>")}, "text.pkl"),
    "a truncated network": lambda world, folder: (
        [],
        {"ddo": written(folder / "cut.pkl", world.base.read_bytes()[:-1000])},
        "cut.pkl",
    ),
    "another sha256": lambda *_: (["--ddo-sha256=0123"], {}, "the file is not used"),
    "a file for an output folder": lambda world, folder: (
        [f"--outdir={written(folder / 'out.zip', b'')}"],
        {},
        "out.zip is a file, but a round writes to a folder",
    ),
    "trust in a URL": lambda *_: (["--ddo-trust"], {"ddo": "https://example.invalid/net.pkl"}, "--ddo-sha256=HEX"),
    "half precision": lambda *_: (["--fp16=1"], {}, "the loss needs fp32"),
    "a number that is none": lambda *_: (["--ls=inf"], {}, "--ls=inf is not a finite number"),
    "dropout": lambda *_: (["--dropout=0.1"], {}, "drop --dropout"),
    "an unknown objective": lambda *_: (["--ddo-objective=gan"], {}, "unknown objective; available are ddo, mle"),
    "a conditional reference without labels": lambda *_: (["--cond=0"], {}, "add --cond=1"),
    "no fakes": lambda *_: ([], {"ddo_fakes": None}, "--ddo needs --ddo-fakes"),
    "missing fakes": lambda world, folder: ([], {"ddo_fakes": folder / "none"}, "no such reference set"),
    "real images as fakes": lambda world, folder: ([], {"ddo_fakes": world.data}, "is the same path as --data"),
    "fakes without labels": lambda world, folder: (
        [],
        {"ddo_fakes": write_images(folder / "unlabelled.zip", labelled=False)},
        "has no labels",
    ),
    "fakes in a zip that is none": lambda world, folder: (
        [],
        {"ddo_fakes": written(folder / "junk.zip", b"<html>404</html>")},
        "junk.zip cannot be read as images",
    ),
    "truncated fakes": lambda world, folder: (
        [],
        {"ddo_fakes": truncated_fakes(world, folder)},
        "images.npy is missing or truncated",
    ),
}


@pytest.fixture(params=BAD_INPUTS)
def bad_input(request: pytest.FixtureRequest, world, tmp_path: Path) -> tuple[list[str], dict[str, Any], str]:
    """Each of the bad inputs that every upstream refuses alike."""
    return BAD_INPUTS[request.param](world, tmp_path)


@pytest.fixture(scope="module")
def compiling(world, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world, where torch.compile keeps its files in a folder of its own and tells what it compiles again."""
    own = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("inductor")), "TORCH_LOGS": "recompiles,graph_breaks"}
    return replace(world, variables={**world.variables, **own})
