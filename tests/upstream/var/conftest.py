"""A VAR of depth 2 on images of 48 x 48 pixels, with a narrow autoencoder: see stand_ins/ and make_networks.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
PACKAGES = ("PIL", "tap", "pytz", "huggingface_hub", "tensorboard")
COMMON = ["--depth=2", "--pn=1_2_3", "--bs=12", "--ep=1", "--seed=0"]
CLASSES, SIDE = 3, 56
SHARED = "var_d2_shared.pth"  # a base network for --saln=1
OWN = "var_d2_own.pth"  # a base network with as many classes as there are folders
VAE = "vae_ch160v4096z32.pth"  # where train.py looks for it: in the current folder


def write_images(folder: Path, count: int, seed: int) -> None:
    """Folders 0, 1 and 2 with `count` images each: a ramp in the class's own colour and direction, and noise."""
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, SIDE)
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
        direction = (ramp[:, None], ramp[None], ramp[:, None] * ramp[None])[label]
        for number in range(count):
            pixels = draw.normal(0, 20, (SIDE, SIDE, 3)) + 60
            pixels[..., label] += 180 * np.broadcast_to(direction, (SIDE, SIDE)) * draw.uniform(0.5, 1)
            image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / str(label) / f"{number:03d}.png")


@pytest.fixture(scope="session")
def world(make_world, completed):
    """36 training and 12 validation images of 3 classes, the autoencoder, and plain base networks."""
    stand_ins = {"PYTHONPATH": str(HERE / "stand_ins")}
    options = {"data": "images", "data_flag": "--data_path", "packages": PACKAGES, "variables": stand_ins}

    def build(world) -> None:
        write_images(world.data / "train", 12, seed=0)
        write_images(world.data / "val", 4, seed=1)
        made = ["1_2_3", world.data / "train", world.root / VAE, world.base, world.root / SHARED, world.root / OWN]
        completed(world.python(HERE / "make_networks.py", *made, PYTHONPATH=f"{world.repo}:{HERE / 'stand_ins'}"))

    return make_world("VAR", "train.py", COMMON, "var_d2.pth", build, **options)
