"""A round of VAR with the tokens of 512-pixel images."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddo_plugin.finetuning import statistics

pytestmark = pytest.mark.thorough

SIDES = "1_2_3_4_6_9_13_18_24_32"  # what upstream calls 512
MAKE = Path(__file__).with_name("make_networks.py")


def test_a_round_with_2240_tokens_an_image(world, completed, tmp_path: Path) -> None:
    stand_ins = world.variables["PYTHONPATH"]
    made = [world.data / "val" / "0", world.root / "unused.pth", base := tmp_path / "var_d2.pth"]
    completed(world.python(MAKE, SIDES, *made, PYTHONPATH=f"{world.repo}:{stand_ins}"))
    flags = [f"--ddo={base}", "--pn=512", "--bs=4", "--ddo_iters=2", "--ddo_beta=0.05", "--tblr=5e-3"]
    completed(world.train(*flags, f"--local_out_dir_path={tmp_path / 'out'}"))
    first, second = statistics.read(tmp_path / "out" / statistics.FILE_NAME)
    assert abs(first["rewards/real"]) < 0.01
    assert second["rewards/margin"] != first["rewards/margin"]
