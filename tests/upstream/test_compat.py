"""Pristine EDM and EDM2 on a CPU and on today's stack: they train, resume, generate and measure."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

COMPAT = ["-m", "ddo_plugin.compat"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
NIMG = 1024  # the shortest run that upstream's units allow
SHAPE = (3, 8, 8)
EDM = ["--nosubdir", "--cond=1", "--arch=ddpmpp", "--cbase=8", "--cres=1,1", "--batch=64"]
EDM += ["--tick=1", "--snap=1", "--dump=1"]
EDM2 = ["--preset=edm2-img64-xs", "--batch=64", "--status=1Ki", "--snapshot=1Ki", "--checkpoint=1Ki"]
DETECTOR_URL = "/".join(
    [
        "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/metrics",
        "inception-2015-12-05.pkl",
    ]
)
# In the place of the Inception network: its only feature is the mean of an image. Covariances are then diagonal, and
# the distance is that of two numbers' means and standard deviations.
DETECTOR = """
import torch

class Detector:
    def to(self, device):
        return self

    def __call__(self, images, return_features):
        features = torch.zeros(len(images), 2048)
        features[:, 0] = images.float().mean(dim=(1, 2, 3))
        return features

detector = Detector()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds data.zip: 32 images of 8×8 pixels in three classes, as upstream's dataset tool packs them."""
    image = pytest.importorskip("PIL.Image")
    folder, random = tmp_path_factory.mktemp("compat"), np.random.default_rng(0)
    names = [f"{number:02d}.png" for number in range(32)]
    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        for name in names:
            png = io.BytesIO()
            image.fromarray(random.integers(0, 256, (*SHAPE[1:], SHAPE[0]), dtype=np.uint8)).save(png, "png")
            archive.writestr(name, png.getvalue())
        archive.writestr("dataset.json", json.dumps({"labels": [[name, n % 3] for n, name in enumerate(names)]}))
    return folder


def run(folder: Path, *arguments: object, status: int = 0, **env: str) -> str:
    """Python in the folder, on the CPU, with a port of its own: EDM always takes 29500 unless it is told another."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    settings = {"DDO_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "MASTER_PORT": port}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | settings | env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == status, done.stdout[-2000:] + done.stderr
    return done.stdout if status == 0 else done.stdout + done.stderr  # EDM prints its tracebacks on stdout


def losses(folder: Path) -> list[dict]:
    """Of each line of upstream's stats.jsonl the entry of the loss."""
    return [json.loads(line)["Loss/loss"] for line in (folder / "stats.jsonl").read_text().splitlines()]


def optimizer_steps(checkout: Path, path: Path) -> int:
    """As a training state of EDM tells; it holds upstream's classes and is therefore read in a process of its own."""
    code = """
import sys, torch
state = torch.load(sys.argv[1], weights_only=False)
print(int(state["optimizer_state"]["state"][0]["step"]))
"""
    return int(run(checkout, "-c", code, path))


def pngs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


# -- EDM --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def edm(folder: Path, checkout: Callable[[str], Path]) -> Path:
    """A finished run of pristine EDM."""
    run(folder, *COMPAT, checkout("edm") / "train.py", "--outdir=edm", "--data=data.zip", *EDM, "--duration=0.001")
    return folder / "edm"


def test_edm_trains_and_its_snapshot_is_readable_under_numpy_1(edm):
    assert [np.isfinite(loss["mean"]) for loss in losses(edm)] == [True, True]
    assert sum(loss["num"] for loss in losses(edm)) == NIMG * np.prod(SHAPE)
    assert b"numpy._core" not in (edm / "network-snapshot-000001.pkl").read_bytes()


def test_edm_resumes_with_its_optimizers_state(edm, folder, checkout):
    script, state = checkout("edm") / "train.py", "--resume=edm/training-state-000001.pt"
    command = [*COMPAT, script, "--outdir=resumed", "--data=data.zip", *EDM, "--duration=0.002", state]
    run(folder, *command)
    assert optimizer_steps(checkout("edm"), edm / "training-state-000001.pt") == 16
    assert optimizer_steps(checkout("edm"), folder / "resumed/training-state-000002.pt") == 32
    assert "UnpicklingError" in run(folder, *command, status=1, DDO_COMPAT_OFF="weights-only")


def test_edm_needs_the_sampler_mended(folder, checkout):
    command = [*COMPAT, checkout("edm") / "train.py", "--outdir=none", "--data=data.zip", *EDM, "--duration=0.001"]
    assert "TypeError" in run(folder, *command, status=1, DDO_COMPAT_OFF="sampler")


def test_edm_generates_and_measures(edm, folder, checkout, detector):
    network, seeds = f"--network={edm}/network-snapshot-000001.pkl", ["--seeds=0-7", "--batch=4", "--steps=3"]
    run(folder, *COMPAT, checkout("edm") / "generate.py", network, "--outdir=edm-out", *seeds)
    assert pngs(folder / "edm-out") == [f"{seed:06d}.png" for seed in range(8)]
    sigma = np.zeros((2048, 2048))
    sigma[0, 0] = 4
    np.savez(folder / "ref.npz", mu=np.eye(2048)[0] * 100, sigma=sigma)
    command = [*COMPAT, checkout("edm") / "fid.py", "calc", "--images=edm-out", "--ref=ref.npz", "--num=8"]
    means = means_of(folder / "edm-out")
    expected = (means.mean() - 100) ** 2 + (means.std(ddof=1) - 2) ** 2
    assert float(run(folder, *command, **detector).split()[-1]) == pytest.approx(expected, rel=1e-4)


def test_two_processes_train_edm_together_and_share_its_images(folder, checkout):
    script = checkout("edm") / "train.py"
    run(folder, *TORCHRUN, *COMPAT, script, "--outdir=two", "--data=data.zip", *EDM, "--duration=0.001")
    assert sum(loss["num"] for loss in losses(folder / "two")) == NIMG * np.prod(SHAPE)
    network, seeds = f"--network={folder}/two/network-snapshot-000001.pkl", ["--seeds=0-7", "--batch=2", "--steps=3"]
    launch = ["--torchrun", " ".join(TORCHRUN[2:]), checkout("edm"), "generate.py"]
    run(folder, "-m", "ddo_plugin", "run", *launch, "--", network, "--outdir=two-out", *seeds)
    assert len(pngs(folder / "two-out")) == 8


# -- EDM2 -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def train_edm2(folder: Path, checkout: Callable[[str], Path]) -> Callable[..., Path]:
    """A function: name of the run, so many kibi-images -> its folder."""

    def train(name: str, duration: int, *launcher: str) -> Path:
        script, path = Path(__file__).parent / "train_tiny_edm2.py", str(checkout("edm2"))
        arguments = [f"--outdir={name}", "--data=data.zip", *EDM2, f"--duration={duration}Ki"]
        run(folder, *launcher, *COMPAT, script, *arguments, PYTHONPATH=path)
        return folder / name

    return train


@pytest.fixture(scope="module")
def edm2(train_edm2: Callable[..., Path]) -> Path:
    """A finished run of EDM2, in two parts."""
    train_edm2("edm2", 1)
    return train_edm2("edm2", 2)


SNAPSHOT = "network-snapshot-0000002-0.050.pkl"


def test_edm2_resumes_and_gets_what_an_uninterrupted_run_gets(edm2, train_edm2, checkout):
    whole = train_edm2("edm2-whole", 2)
    code = """
import pickle, sys, torch
first, *others = [pickle.load(open(path, "rb"))["ema"].state_dict() for path in sys.argv[1:]]
print([int(all(torch.equal(first[name], other[name]) for name in first)) for other in others])
"""
    earlier = edm2 / SNAPSHOT.replace("0002", "0001")
    assert run(checkout("edm2"), "-c", code, edm2 / SNAPSHOT, whole / SNAPSHOT, earlier) == "[1, 0]\n"
    assert b"numpy._core" not in (edm2 / SNAPSHOT).read_bytes()


def test_edm2_generates_and_measures(edm2, folder, checkout, detector):
    network, seeds = f"--net={edm2 / SNAPSHOT}", ["--seeds=0-7", "--steps=3"]
    run(folder, *COMPAT, checkout("edm2") / "generate_images.py", network, "--outdir=edm2-out", *seeds)
    assert pngs(folder / "edm2-out") == [f"{seed:06d}.png" for seed in range(8)]
    script, options = checkout("edm2") / "calculate_metrics.py", ["--metrics=fid", "--workers=0"]
    run(folder, *COMPAT, script, "ref", "--data=data.zip", "--dest=ref.pkl", *options, **detector)
    assert b"numpy._core" not in (folder / "ref.pkl").read_bytes()
    command = [*COMPAT, script, "calc", "--images=edm2-out", "--ref=ref.pkl", "--num=8", *options]
    with zipfile.ZipFile(folder / "data.zip") as archive:
        archive.extractall(folder / "data")
    ours, theirs = means_of(folder / "edm2-out"), means_of(folder / "data")
    expected = (ours.mean() - theirs.mean()) ** 2 + (ours.std(ddof=1) - theirs.std(ddof=1)) ** 2
    assert float(run(folder, *command, **detector).split()[-1]) == pytest.approx(expected, rel=1e-4)


def test_two_processes_train_edm2_together(train_edm2):
    two = train_edm2("edm2-two", 1, *TORCHRUN)
    assert np.isfinite(json.loads((two / "stats.jsonl").read_text().splitlines()[-1])["Loss/loss"])


def test_edm2s_own_command_accepts_a_preset(folder, checkout):
    script = checkout("edm2") / "train_edm2.py"
    printed = run(folder, *COMPAT, script, "--outdir=none", "--data=data.zip", *EDM2, "--duration=1Ki", "--dry-run")
    assert '"model_channels": 128' in printed


# -- metrics ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(folder: Path) -> dict[str, str]:
    """The environment in which upstream finds our detector where it would have kept the one it downloads."""
    (folder / "modules").mkdir()
    (folder / "modules/stand_in_detector.py").write_text(DETECTOR)
    cached = f"{hashlib.md5(DETECTOR_URL.encode()).hexdigest()}_{DETECTOR_URL.rpartition('/')[2]}"
    (folder / "cache/downloads").mkdir(parents=True)
    (folder / "cache/downloads" / cached).write_bytes(b"cstand_in_detector\ndetector\n.")
    return {"DNNLIB_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(folder / "modules")}


def means_of(folder: Path) -> np.ndarray:
    from PIL import Image

    return np.array([np.asarray(Image.open(path), np.float32).mean() for path in sorted(folder.glob("*.png"))])
