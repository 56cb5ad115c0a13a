"""A search of self-play over the demo's real trainings, which pause and go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ddo_plugin.jobs import journal
from ddo_plugin.snapshots import sidecar

pytest.importorskip("optuna")

RECIPE = """
title = "a search"
upstream = "digits"
start = "{base}"
rounds = 1

[refset]
count = 60
family = "diffusion"
data = "{data}"

[training]
family = "diffusion"
data = "{data}"
steps = 24
snap = 8

[sweep]
alpha = [1.0, 4.0]
beta = [0.3]

[search]
kind = "adaptive"
rungs = [1]
keep = 0.4
finalists = 1
evaluation = {{ count = 20 }}

[evaluation]
family = "diffusion"
data = "{data}"
count = 40

[policy]
keep = "all"

[resources]
slots = 2
"""


@pytest.mark.thorough  # quick: tests/selfplay/test_search.py with stand-ins for the trainings
def test_the_loser_is_stopped_and_the_winner_goes_on_to_where_it_would_have_come_anyway(
    tmp_path: Path, data: Path, base
) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(base=base("diffusion"), data=data))
    command = [sys.executable, "-m", "ddo_plugin", "selfplay", "r.toml", "--out=out"]
    for further in ([], ["--set=search.kind=grid"]):
        done = subprocess.run([*command, *further], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    facts = journal.read(tmp_path / "out" / journal.FILE_NAME)
    assert [fact["candidate"]["alpha"] for fact in facts if fact["fact"] == "dropped"] in ([1.0], [4.0])
    parts = [fact.get("part") for fact in facts if fact["fact"] == "finished" and fact["kind"] == "training"]
    assert sorted(parts, key=str) == [1, 1, None, None]  # the grid only finished what the search had stopped
    folders = list((tmp_path / "out/r").glob("r01-train-*/"))
    assert [sidecar.steps(folder) for folder in folders] == [[8, 16, 24]] * 2
    compared = [json.loads((tmp_path / "out" / f["evaluation"]).read_text()) for f in facts if f["fact"] == "compared"]
    assert len(compared) == 2 + 2
    assert {one["count"] for one in compared} == {20}
