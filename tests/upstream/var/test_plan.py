"""`ddo plan` counts a network of the real VAR, and a real step costs what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upstream.planning import counted, plan


def test_a_real_step_has_the_operations_that_the_plan_says(world, completed, tmp_path: Path) -> None:
    script = Path(__file__).with_name("counted.py")
    told = counted(world, completed, tmp_path / "out", script, world.base, world.data / "train")
    assert told["network"]["parameters"] == told["parameters"]
    # the head runs once more in the backward pass, which the plan leaves out
    assert told["counted"] == pytest.approx(told["predicted"], rel=0.05)


def test_the_plan_of_an_own_network(world, completed) -> None:
    output = plan("var", world, completed, 'pn = "1_2_3"\ndepth = 2\nbs = 12\nddo-iters = 4')
    assert "2 rounds and these: " in output and "2 trainings" in output and "reference set" not in output
    assert "with 12 real images in a pass" in output
