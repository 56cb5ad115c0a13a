"""`ddo selfplay` in the real EDM: two rounds, reference sets, sweeps and fid.py included."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.jobs import journal
from ddo_plugin.snapshots import sidecar

pytestmark = pytest.mark.thorough

RECIPE = """
title = "A tiny EDM"
upstream = "edm"
start = "{base}"
rounds = 2

[launch]
checkout = "{repo}"

[refset]
count = 24
steps = 3

[training]
data = "{data}"
cond = true
batch = 32
tick = 1
snap = 1
dump = 1
duration = 0.001

[sweep]
alpha = [2.0]
beta = [0.3, 0.5]

[evaluation]
ref = "{ref}"
num = 24
batch = 24
sampler = "--steps=2"

[report]
enabled = false
"""


@pytest.fixture(scope="module")
def play(world, completed, detector):
    """A function: folder, overrides -> the folder with the recipe's run in it."""
    ref = world.root / "ref.npz"
    np.savez(ref, mu=np.eye(2048)[0] * 120, sigma=np.diag(np.eye(2048)[0] * 900))
    recipe = world.root / "tiny.toml"
    recipe.write_text(RECIPE.format(base=world.base, repo=world.repo, data=world.data, ref=ref))
    env = detector(world.root)

    def run(out: str, *overrides: str) -> Path:
        chosen = [f"--set={one}" for one in overrides]
        completed(world.python("-m", "ddo_plugin", "selfplay", recipe, f"--out={out}", *chosen, **env))
        return world.root / out

    return run


@pytest.fixture(scope="module")
def played(play) -> Path:
    play("played")
    return play("played")  # nothing is left to do


def facts(played: Path, name: str) -> list[dict]:
    return [fact for fact in journal.read(played / journal.FILE_NAME) if fact["fact"] == name]


def test_each_round_starts_from_the_best_network_of_the_one_before(played: Path, world) -> None:
    chosen = [played / fact["network"] for fact in facts(played, "selected")]
    assert len(chosen) == 2
    assert sidecar.read(chosen[0])["reference"]["source"] == str(world.base)
    assert sidecar.read(chosen[1])["reference"]["sha256"] == sidecar.read(chosen[0])["sha256"]


def test_the_best_of_all_evaluations_wins(played: Path) -> None:
    scores = [fact["score"] for fact in facts(played, "evaluated")]
    assert len(scores) >= 1 + 2 * 2
    winner = facts(played, "winner")[-1]
    assert winner["score"] == min(scores)


def test_a_second_start_does_nothing_again(played: Path) -> None:
    finished = [fact["out"] for fact in facts(played, "finished")]
    assert len(finished) == len(set(finished))


def test_a_search_pauses_trainings_and_lets_the_better_one_go_on(play) -> None:
    pytest.importorskip("optuna")
    short = ["rounds=1", "training.duration=0.002", "evaluation.num=12", "search.finalists=1", "policy.keep=all"]
    out = play("searched", *short, "search.kind=adaptive", "search.rungs=[1]", "search.keep=0.5")
    assert len(facts(out, "dropped")) == 1
    parts = [(fact["task"], fact.get("part")) for fact in facts(out, "finished") if fact["kind"] == "training"]
    assert [part for _, part in parts] == [1, 1, None]
    left = {folder: sidecar.steps(folder) for folder in (out / "tiny").glob("r01-train-*/")}
    assert sorted(map(len, left.values())) == [1, 2]
    assert len(facts(out, "evaluated")) == 1 + 1
    assert len(facts(out, "compared")) == 2 + 1


def test_the_judge_was_fid_py(played: Path) -> None:
    found = [json.loads(path.read_text()) for path in played.rglob("*-eval-*.json")]
    assert found and all(any("fid.py" in command for command in one["commands"]) for one in found)


def test_neon_is_merged_judged_by_fresh_seeds_and_compared_with_a_control(play) -> None:
    neon = ["rounds=1", 'sweep.objective="neon"', "sweep.beta=[1]", "merge.w=[-1,-0.5]"]
    out = play("neon", *neon, "report.enabled=true", "report.seeds=[7]", "report.control=true")
    networks = [(fact["plan"], fact.get("w")) for fact in facts(out, "evaluated") if fact["round"]]
    assert sorted(networks, key=str) == [("tiny", -0.5), ("tiny", -1.0), ("tiny-control", None)]
    [winner] = [fact for fact in facts(out, "selected") if fact["plan"] == "tiny"]
    described = sidecar.read(out / winner["network"])
    assert described["merge"]["w"] in (-1.0, -0.5)
    judged = {fact["role"]: json.loads((out / fact["evaluation"]).read_text()) for fact in facts(out, "judged")}
    assert judged.keys() == {"base", "winner", "control"}
    for evaluation in judged.values():
        assert [each["seed"] for each in evaluation["by_seed"]] == [7]
