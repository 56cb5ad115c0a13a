"""The folder in which the commands of cases.py work: a file of every kind that they read."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ddo_integrations.demo.families import build
from ddo_plugin.base.image_files import png
from ddo_plugin.sampling.refsets import format as refset
from tests.conftest import RECIPE, stand_in_world
from tests.processes import run_python
from tests.security import pieces

CURVE = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
out.with_name(out.name + ".part").write_text(json.dumps({"metrics": {"fid": 1.0, "is": 2.0}}))
out.with_name(out.name + ".part").replace(out)
"""
SELF_PLAY = RECIPE.replace("rounds = 2", "rounds = 1").replace("[2.0, 3.0]", "[2.0]").replace("[0.1, 0.2]", "[0.1]")

# What the integration of EDM reads in a checkout.
CHECKOUT = {
    "train.py": "def main(): ...\n",
    "training/loss.py": "class EDMLoss: ...\n",
    "training/training_loop.py": "def training_loop(): ...\n",
    "training/networks.py": """
import torch

class EDMPrecond(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(width, width))
""",
    "generate.py": "",
    "fid.py": "",
}


def fill(folder: Path, data: Path) -> None:
    """Fill a new folder; `data` is the demo's. The stand-in's plugin is put beside it."""
    (folder / "images").mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    for number, image in enumerate(images):
        (folder / f"images/{number}.png").write_bytes(png(image))
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.write(folder / "images/0.png", "0.png")
    refset.write(folder / "set", images, np.arange(4), kind="images", reference={}, sampler={}, seed=0)
    np.savez(folder / "samples.npz", arr_0=np.random.default_rng(1).integers(0, 256, (70, 8, 8, 1), dtype=np.uint8))
    _checkpoint_of_var(folder / "ar-ckpt-last.pth")
    _checkout_of_edm(folder)
    (folder / "data").symlink_to(data)
    (folder / "measure.py").write_text(CURVE)
    _network_and_fakes_of_the_demo(folder, data)
    _finished_self_play(folder)


def _checkpoint_of_var(path: Path) -> None:
    weights = {name: torch.zeros(3, 4) for name in ("class_emb.weight", "word_embed.weight", "pos_1LC", "head.weight")}
    weights |= {"lvl_1L": torch.zeros(1, 5), "blocks.0.ffn.fc1.weight": torch.zeros(3, 4)}
    trainer = {"vae_local": {}, "var_wo_ddp": weights, "config": {"patch_nums": (1, 2)}}
    torch.save({"epoch": 3, "iter": 5, "trainer": trainer, "args": {}}, path)


def _checkout_of_edm(folder: Path) -> None:
    for name, text in CHECKOUT.items():
        (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "checkout" / name).write_text(text)
    (folder / "script").write_text("#!/bin/sh\necho 1.5\n")
    (folder / "script").chmod(0o755)
    arguments = {"_init_args": pieces.tuple_(), "_init_kwargs": pieces.dict_({"width": pieces.const(4)})}
    network = pieces.module("EDMPrecond", {"weight": pieces.floats(4, 4)}, **arguments)
    (folder / "network.pkl").write_bytes(pieces.pickled(pieces.dict_({"ema": network})))
    np.savez(folder / "ref.npz", mu=np.zeros(2048), sigma=np.eye(2048))


def _network_and_fakes_of_the_demo(folder: Path, data: Path) -> None:
    torch.manual_seed(0)
    network = build("diffusion", data).network()
    for name in ("network", "finetuned"):
        save_file(network.state_dict(), folder / f"{name}.safetensors", metadata={"family": "diffusion"})
    digits = ["--network=network.safetensors", "--upstream=digits", "--family=diffusion", "--data=data"]
    command = ["-m", "ddo_plugin", "refset", "make", *digits, "--count=8", "--out=fakes"]
    run_python(command, cwd=folder).check_returncode()


def _finished_self_play(folder: Path) -> None:
    site = stand_in_world(folder.parent / "stand-in", SELF_PLAY)
    for name in ("recipe.toml", "base.net"):
        shutil.copy(site.folder / name, folder)
    env = {**os.environ, "PYTHONPATH": str(site.folder / "site"), "STANDIN_NOTES": os.devnull}
    run_python(["-m", "ddo_plugin", "selfplay", "recipe.toml", "--out=played"], cwd=folder, env=env).check_returncode()
