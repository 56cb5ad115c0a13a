"""What pristine scripts and our commands make of the same seeds, side by side."""

from __future__ import annotations

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


def pristine(world, completed, script: str, out: Path, *flags: object, ranks: int = 1) -> Path:
    """Upstream's own script, on a CPU."""
    launcher = LAUNCHER if ranks > 1 else []
    completed(world.python(*launcher, "-m", "ddo_plugin.compat", world.repo / script, f"--outdir={out}", *flags))
    return out


def ours(world, completed, command: Sequence[str], *flags: object, ranks: int = 1) -> str:
    launcher = LAUNCHER if ranks > 1 else []
    return completed(world.python(*launcher, "-m", "ddo_plugin", *command, f"--checkout={world.repo}", *flags))
