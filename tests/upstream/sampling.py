"""What pristine scripts and our commands make of the same seeds, side by side."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddo_plugin.sampling.refsets import format as refset

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def pixels(folder: Path) -> dict[str, np.ndarray]:
    """Every PNG of a folder by its name there."""
    files = sorted(folder.rglob("*.png"))
    assert files
    return {file.relative_to(folder).as_posix(): np.asarray(Image.open(file)) for file in files}


def assert_same_images(one: Path, other: Path) -> None:
    first, second = pixels(one), pixels(other)
    assert first.keys() == second.keys()
    for name, image in first.items():
        np.testing.assert_array_equal(image, second[name], err_msg=name)
    assert len(np.unique(np.stack(list(first.values())), axis=0)) == len(first)  # not all alike


def assert_close_images(one: Path, other: Path) -> None:
    """Nowhere more than a grey level apart, and mostly equal."""
    first, second = pixels(one), pixels(other)
    assert first.keys() == second.keys()
    apart = np.stack([np.abs(image.astype(int) - second[name]) for name, image in first.items()])
    assert apart.max() <= 1
    assert apart.mean() < 0.1
    assert np.stack(list(first.values())).std() > 5


def pristine(world, completed, script: str, out: Path, *flags: object, ranks: int = 1) -> Path:
    """Upstream's own script, on a CPU."""
    launcher = LAUNCHER if ranks > 1 else []
    completed(
        world.python(*launcher, "-m", "ddo_plugin.checkouts.compat", world.repo / script, f"--outdir={out}", *flags)
    )
    return out


def release(world, completed, checkout: Path, out: Path, *flags: object) -> Path:
    """The release's EDM2_sample.py on a CPU, in a copy of EDM2's checkout, as its README asks."""
    folder = world.root / "release"
    if not folder.exists():
        shutil.copytree(world.repo, folder)
        shutil.copy(checkout / "EDM2_sample.py", folder)
    driver = [
        "-m",
        "ddo_plugin.checkouts.compat",
        Path(__file__).parent / "edm2/release_on_cpu.py",
        f"--outdir={out}",
        *flags,
    ]
    path = os.pathsep.join([str(folder), world.variables.get("PYTHONPATH", "")])
    completed(world.python(*driver, PYTHONPATH=path))
    return out


def ours(world, completed, command: Sequence[str], *flags: object, ranks: int = 1) -> str:
    launcher = LAUNCHER if ranks > 1 else []
    return completed(world.python(*launcher, "-m", "ddo_plugin", *command, f"--checkout={world.repo}", *flags))


HALVED = """
import importlib, pickle, sys, torch

base, out, module, half = sys.argv[1:]
with open(base, "rb") as file:
    data = pickle.load(file)
stored = data["ema"]
cls = getattr(importlib.import_module(module), type(stored).__name__)
net = cls(*stored.init_args, **{**stored.init_kwargs, "use_fp16": half == "True"})
net.load_state_dict(stored.state_dict())
torch.manual_seed(0)
with torch.no_grad():
    for parameter in net.parameters():  # so that the images depend on the network more than after a short training
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
data["ema"] = net.eval().requires_grad_(False).to(next(stored.parameters()).dtype)
with open(out, "wb") as file:
    pickle.dump(data, file)
"""


def in_half_precision(world, completed, root: Path, networks: str) -> tuple[Any, dict[bool, Path]]:
    """A copy of the world whose upstream uses fp16 on a CPU too, and its base as an fp16 and as an fp32 network."""
    shutil.copytree(world.repo, root / "repo")
    source = root / "repo" / f"{networks.replace('.', '/')}.py"
    on_gpus = " and x.device.type == 'cuda'"
    assert on_gpus in source.read_text()
    source.write_text(source.read_text().replace(on_gpus, ""))
    halved = dataclasses.replace(world, root=root, base=world.base)
    made = {half: root / f"half-{half}.pkl" for half in (False, True)}
    for half, path in made.items():
        completed(halved.python("-c", HALVED, world.base, path, networks, half, PYTHONPATH=str(halved.repo)))
    return halved, made


def greatest_difference(one: Path, other: Path) -> int:
    first, second = pixels(one), pixels(other)
    return max(int(np.abs(image.astype(int) - second[name]).max()) for name, image in first.items())


def assert_compiled_set_is_the_same(world: Any, completed: Any, refused: Any, tmp_path: Path) -> None:
    """A compiled network makes the same set up to one grey level, and the manifest says that it was compiled."""
    flags = [f"--checkout={world.repo}", f"--network={world.base}", "--count=5", "--batch=4", "--steps=3"]
    make = ["-m", "ddo_plugin", "refset", "make", *flags]
    made = []
    for name, own in {"eager": [], "compiled": ["--compile"]}.items():
        completed(world.python(*make, f"--out={tmp_path / name}", *own))
        made.append(refset.open_refset(tmp_path / name))
    assert np.abs(made[0].samples.astype(int) - made[1].samples).max() <= 1
    assert "compiled" not in made[0].manifest["sampler"]
    assert made[1].manifest["sampler"]["compiled"] is True
    line = refused(world.python(*make, f"--out={tmp_path / 'compiled'}"))
    assert "holds another set: its sampler.compiled is True, not None" in line
