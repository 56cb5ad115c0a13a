"""Accumulation and ranks give the gradients of one batch on one rank, and every rank its own fakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.thorough

HERE = Path(__file__).parent


@pytest.fixture
def script(world, completed):
    """A function: script, ranks, arguments -> runs it under torchrun in the world's folder."""

    def run(name: str, ranks: int, *arguments: object) -> None:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        variables = {"PYTHONPATH": f"{world.repo}:{HERE}:{world.variables['PYTHONPATH']}"}
        completed(world.python(*launcher, HERE / name, world.base, world.data / "train", *arguments, **variables))

    return run


def test_accumulation_and_ranks_change_no_gradient(script, tmp_path) -> None:
    found = {}
    for ranks, chunks in ((1, 1), (1, 2), (2, 1), (2, 2)):
        out = tmp_path / f"{ranks}-{chunks}.pt"
        script("gradients.py", ranks, out, chunks)
        found[ranks, chunks] = torch.load(out)
    whole = found.pop((1, 1))
    assert whole.norm() > 0.01
    for split in found.values():
        assert (split - whole).norm() < 2e-6 * whole.norm()


def test_every_rank_and_every_batch_draw_their_own_fakes_and_draw_them_again(script, tmp_path) -> None:
    script("draws.py", 2, tmp_path / "drawn")
    one, other = (torch.load(f"{tmp_path / 'drawn'}.{rank}") for rank in (0, 1))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], one[1])
    assert torch.equal(one[0], one[2])
