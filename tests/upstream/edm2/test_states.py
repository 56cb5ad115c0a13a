"""Training states appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.processes import run_python

# A state whose last piece cannot be pickled: writing it stops half-way, as by a kill.
HALF_A_STATE = """
import sys
from torch_utils import distributed as dist
from ddo_integrations.edm2 import states
if sys.argv[2] == "atomic":
    states.write_atomically()
try:
    dist.CheckpointIO(state={"cur_nimg": 1024, "unpicklable": lambda: None}).save(sys.argv[1])
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("way", "left"), [("atomic", []), ("upstream's", ["training-state-0000001.pt"])])
def test_a_state_that_could_not_be_written_is_not_there(way: str, left: list[str], checkout, tmp_path: Path) -> None:
    command = ["-c", HALF_A_STATE, str(tmp_path / "training-state-0000001.pt"), way]
    environment = {**os.environ, "PYTHONPATH": str(checkout("edm2")), "PYTHONDONTWRITEBYTECODE": "1"}
    out = run_python(command, env=environment).stdout
    assert out.strip().endswith("Error")
    assert [path.name for path in tmp_path.iterdir()] == left
