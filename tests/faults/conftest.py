"""The command lines that the faults hit, each with a folder in which it works."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ddo_integrations.demo.families import build
from ddo_plugin.base.image_files import png
from ddo_plugin.sampling.refsets import format as refset
from tests.conftest import RECIPE
from tests.processes import run_python

CURVE = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
out.with_name(out.name + ".part").write_text(json.dumps({"metrics": {"fid": 1.0, "is": 2.0}}))
out.with_name(out.name + ".part").replace(out)
"""
SELF_PLAY = RECIPE.replace("rounds = 2", "rounds = 1").replace("[2.0, 3.0]", "[2.0]").replace("[0.1, 0.2]", "[0.1]")


@pytest.fixture(scope="session")
def fault_world(tmp_path_factory: pytest.TempPathFactory, demo_data: Path, make_world: Callable[..., Any]) -> Path:
    """A folder with a file of every kind that a command reads. The folders in it are those of single commands."""
    folder = tmp_path_factory.mktemp("faults") / "world"
    (folder / "images").mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    for number, image in enumerate(images):
        (folder / f"images/{number}.png").write_bytes(png(image))
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.write(folder / "images/0.png", "0.png")
    refset.write(folder / "set", images, np.arange(4), kind="images", reference={}, sampler={}, seed=0)
    np.savez(folder / "samples.npz", arr_0=np.random.default_rng(1).integers(0, 256, (70, 8, 8, 1), dtype=np.uint8))
    weights = {name: torch.zeros(3, 4) for name in ("class_emb.weight", "word_embed.weight", "pos_1LC", "head.weight")}
    weights |= {"lvl_1L": torch.zeros(1, 5), "blocks.0.ffn.fc1.weight": torch.zeros(3, 4)}
    trainer = {"vae_local": {}, "var_wo_ddp": weights, "config": {"patch_nums": (1, 2)}}
    torch.save({"epoch": 3, "iter": 5, "trainer": trainer, "args": {}}, folder / "ar-ckpt-last.pth")
    (folder / "data").symlink_to(demo_data)
    torch.manual_seed(0)
    network = build("diffusion", demo_data).network()
    for name in ("network", "finetuned"):
        save_file(network.state_dict(), folder / f"{name}.safetensors", metadata={"family": "diffusion"})
    (folder / "measure.py").write_text(CURVE)
    digits = ["--network=network.safetensors", "--upstream=digits", "--family=diffusion", "--data=data"]
    run_python(
        ["-m", "ddo_plugin", "refset", "make", *digits, "--count=8", "--out=fakes"], cwd=folder
    ).check_returncode()
    site = make_world(folder.parent / "stand-in", SELF_PLAY)
    for name in ("recipe.toml", "base.net"):
        shutil.copy(site.folder / name, folder)
    env = {**os.environ, "PYTHONPATH": str(site.folder / "site"), "STANDIN_NOTES": os.devnull}
    run_python(["-m", "ddo_plugin", "selfplay", "recipe.toml", "--out=played"], cwd=folder, env=env).check_returncode()
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep caches out of the user's folders; a fork needs a process without threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2])]))
