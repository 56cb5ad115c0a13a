"""`ddo plan` counts a network of the real EDM2, and a real step costs what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upstream.planning import counted, plan


def test_a_real_step_has_the_operations_that_the_plan_says(world, completed, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "counted.py"
    told = counted(world, completed, tmp_path / "out", script, "edm2", world.base, world.fakes)
    assert told["network"]["parameters"] == told["parameters"]
    # the first layer's input needs no gradient, so a backward pass is a little less than two forward passes
    assert told["counted"] == pytest.approx(told["predicted"], rel=0.03)
    assert told["counted"] <= told["predicted"]


def test_the_plan_of_an_own_network(world, completed) -> None:
    output = plan("edm2", world, completed, "cond = true\nbatch = 32\nduration = 2048", "[refset]\ncount = 100\n")
    assert "2 rounds and these: " in output and "reference set, 100 samples" in output
    assert "with 32 real images in a pass" in output
