"""The table [merge]: networks on the line through the reference and a snapshot are evaluated, and can win."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddo_plugin.base.files import sha256_file
from ddo_plugin.jobs.journal import FILE_NAME
from ddo_plugin.selfplay.variants import training_of
from tests.conftest import RECIPE

# A snapshot's score is that of its reference / α + β, so a larger w is better, and a negative one is worse.
ONE = RECIPE.replace("[2.0, 3.0]", "[2.0]").replace("[0.1, 0.2]", "[0.1]")
SEARCH = """
[search]
kind = "adaptive"
rungs = [1]
finalists = 1
seeds = [8]
"""


@pytest.fixture
def world_of(tmp_path: Path, make_world: Callable[..., Any]) -> Callable[[str], Any]:
    return lambda text: make_world(tmp_path, text)


def evaluated(world: Any, number: int) -> list[tuple[str, float]]:
    """The networks of a round that were evaluated: the snapshot and w of each."""
    facts = [fact for fact in world.facts("evaluated") if fact["round"] == number]
    return sorted((Path(fact["network"]).name, fact.get("w", 1.0)) for fact in facts)


def test_every_snapshot_is_evaluated_at_every_w_and_the_best_is_the_next_reference(
    world_of: Callable[[str], Any],
) -> None:
    world = world_of(ONE + "\n[merge]\nw = [1, 1.5]\n")
    done = world.ddo("selfplay", "recipe.toml")
    done.check_returncode()
    assert evaluated(world, 1) == [
        ("network-1-w1.5.net", 1.5),
        ("network-1.net", 1.0),
        ("network-2-w1.5.net", 1.5),
        ("network-2.net", 1.0),
    ]
    first, second = world.facts("selected")
    assert first["network"].endswith("merged/network-1-w1.5.net")
    winner = world.out / second["network"]
    sidecar = json.loads(winner.with_name(winner.name + ".ddo.json").read_text())
    assert sidecar["sha256"] == sha256_file(winner) == world.facts("winner")[0]["sha256"]
    assert sidecar["merge"]["w"] == 1.5
    assert sidecar["merge"]["a"]["sha256"] == sha256_file(world.out / first["network"])
    kept = sorted(path.name for path in world.out.rglob("network*.net"))
    assert kept == ["network-1-w1.5.net"] * 2  # the references of round 2 and of a round 3; policy.keep is "best"
    before = world.notes()
    assert world.ddo("selfplay", "recipe.toml").stdout == done.stdout
    assert world.notes() == before


def test_killed_before_the_selection_a_run_does_not_make_the_best_network_a_third_time(
    world_of: Callable[[str], Any],
) -> None:
    world = world_of(ONE.replace("rounds = 2", "rounds = 1") + "\n[merge]\nw = [1, 1.5]\n")
    world.ddo("selfplay", "recipe.toml").check_returncode()
    journal = world.out / FILE_NAME
    whole = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in whole if '"selected"' not in line and '"winner"' not in line))
    world.ddo("selfplay", "recipe.toml").check_returncode()
    assert sorted(journal.read_text().splitlines(keepends=True)) == sorted(whole)


def test_snapshots_are_not_evaluated_themselves_without_w_1(world_of: Callable[[str], Any]) -> None:
    world = world_of(ONE.replace("rounds = 2", "rounds = 1") + "\n[merge]\nw = [-1, -0.5]\n")
    world.ddo("selfplay", "recipe.toml").check_returncode()
    assert {w for _, w in evaluated(world, 1)} == {-1.0, -0.5} and len(evaluated(world, 1)) == 4
    assert world.facts("winner")[0]["network"] == str(world.folder / "base.net")
    assert [path.name for path in world.out.rglob("network*.net")] == ["network-2-w-0.5.net"]


def test_only_the_best_snapshots_are_merged(world_of: Callable[[str], Any]) -> None:
    world = world_of(RECIPE + "\n[merge]\nw = [0.5, 1, 1.5]\nsnapshots = 1\n")
    world.ddo("selfplay", "recipe.toml").check_returncode()
    for number in (1, 2):
        merged = [each for each in evaluated(world, number) if each[1] != 1]
        assert len(evaluated(world, number)) == 4 * 2 + 2 and [w for _, w in merged] == [0.5, 1.5]
        assert len({name.split("-w")[0] for name, _ in merged}) == 1


def test_a_search_merges_its_finalists(world_of: Callable[[str], Any]) -> None:
    world = world_of(RECIPE + SEARCH + "\n[merge]\nw = [1, 1.5]\n")
    world.ddo("selfplay", "recipe.toml").check_returncode()
    assert [w for _, w in evaluated(world, 1)] == [1.5, 1.0]
    assert all("w" not in fact for fact in world.facts("compared"))
    assert world.facts("selected")[0]["network"].endswith("-w1.5.net")


def test_status_report_and_dry_run_tell_of_w(world_of: Callable[[str], Any]) -> None:
    world = world_of(ONE + "\n[merge]\nw = [1, 1.5]\n")
    printed = world.ddo("selfplay", "recipe.toml", "--dry-run").stdout
    assert printed.count(" ddo_plugin merge ") == 2 and "--w=1.5" in printed
    world.ddo("selfplay", "recipe.toml").check_returncode()
    assert "w=1.5" in world.ddo("selfplay", "recipe.toml", "--status").stdout
    world.ddo("report", str(world.out)).check_returncode()
    page = (world.out / "report.html").read_text()
    assert "Merged networks" in page and "merged with it at w=1.5" in page


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("w = []", "merge.w: [] is not a list of different numbers"),
        ("w = [1, 1]", "merge.w: [1, 1] is not a list of different numbers"),
        ("w = [inf]", "merge.w: [inf] is not a list of different numbers"),
        ("", "merge.w: is missing"),
        ("w = [2]\nsnapshots = 1", "merge.w: needs the value 1, because merge.snapshots chooses the best snapshots"),
        ("w = [1, 2]\nsnapshots = 0", 'merge.snapshots: 0 is not "all" or a whole number >= 1'),
    ],
)
def test_a_wrong_table_is_one_problem(table: str, problem: str, world_of: Callable[[str], Any]) -> None:
    done = world_of(f"{RECIPE}\n[merge]\n{table}\n").ddo("validate", "recipe.toml")
    assert done.returncode == 2 and "1 problem\n" in done.stderr and problem in done.stderr


def test_a_search_needs_the_snapshots_themselves(world_of: Callable[[str], Any]) -> None:
    done = world_of(RECIPE + SEARCH + "\n[merge]\nw = [2]\n").ddo("validate", "recipe.toml")
    assert done.returncode == 2 and "merge.w: needs the value 1 in an adaptive search" in done.stderr


def test_a_merged_reference_of_other_content_is_another_reference(world_of: Callable[[str], Any]) -> None:
    world = world_of(ONE + "\n[merge]\nw = [1, 1.5]\n")
    world.ddo("selfplay", "recipe.toml").check_returncode()
    first = world.out / world.facts("selected")[0]["network"]
    before = world.notes()
    shutil.rmtree(training_of(first))
    step = world.folder / "site" / "standin_step.py"
    step.write_text(step.read_text().replace("/ alpha + beta}", "/ alpha + beta + 1}"))  # as training again on a GPU
    world.ddo("selfplay", "recipe.toml").check_returncode()
    assert [note.split("-")[0] for note in world.notes()[len(before) :] if "refset" in note] == ["refset r02"]


def test_a_damaged_merged_reference_is_refused_with_the_training_to_repeat(world_of: Callable[[str], Any]) -> None:
    world = world_of(ONE.replace("rounds = 2", "rounds = 1") + "\n[merge]\nw = [1, 1.5]\n")
    world.ddo("selfplay", "recipe.toml").check_returncode()
    first = world.out / world.facts("selected")[0]["network"]
    first.write_text("7")
    done = world.ddo("selfplay", "recipe.toml")
    assert done.returncode == 2 and f"delete {training_of(first)} to train it again" in done.stderr
    shutil.rmtree(training_of(first))
    world.ddo("selfplay", "recipe.toml").check_returncode()


def test_a_base_in_a_folder_named_merged_is_known_by_its_digest(tmp_path: Path, make_world: Callable[..., Any]) -> None:
    (tmp_path / "merged").mkdir()
    world = make_world(tmp_path / "merged", ONE)
    world.ddo("selfplay", "recipe.toml").check_returncode()
    before = world.notes()
    world.folder = world.folder.rename(tmp_path / "moved")
    world.env = {name: value.replace("/merged/", "/moved/") for name, value in world.env.items()}
    world.ddo("selfplay", "recipe.toml").check_returncode()
    assert world.notes() == before
