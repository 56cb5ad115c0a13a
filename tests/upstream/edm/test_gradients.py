"""Accumulation and ranks give the gradients of one batch on one rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("gradients.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture(scope="module")
def gradients(world, completed, tmp_path_factory):
    """A function: launcher and accumulation rounds -> all gradients in one vector."""
    folder = tmp_path_factory.mktemp("gradients")

    def compute(launcher: list[str], chunks: int) -> torch.Tensor:
        out = folder / f"{len(launcher)}-{chunks}.pt"
        arguments = [SCRIPT, world.base, world.fakes, out, chunks]
        completed(world.python(*launcher, *arguments, PYTHONPATH=str(world.repo)))
        return torch.cat([gradient.flatten() for gradient in torch.load(out)])

    return compute


def test_accumulation_and_ranks_change_no_gradient(gradients) -> None:
    whole = gradients([], 1)
    assert whole.norm() > 0.01
    for split in (gradients([], 4), gradients(TORCHRUN, 1), gradients(TORCHRUN, 2)):
        assert (split - whole).norm() < 1e-6 * whole.norm()
