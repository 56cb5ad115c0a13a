"""Accumulation and ranks give the gradients of one batch on one rank."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("noise", ["paired", "independent"])
def test_accumulation_and_ranks_change_no_gradient(noise: str, gradients, world) -> None:
    whole = gradients("edm", world, 1, 1, noise)
    assert whole.norm() > 0.01
    for ranks, chunks in ((1, 4), (2, 1), (2, 2)):
        assert (gradients("edm", world, ranks, chunks, noise) - whole).norm() < 1e-6 * whole.norm()
