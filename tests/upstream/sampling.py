"""What pristine scripts and our commands make of the same seeds, side by side."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

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
