"""Winner and base are judged again with seeds that selected nothing, and these numbers are shown first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RECIPE

DEFAULT = RECIPE.replace("[report]\nenabled = false\n", "")
CONTROLLED = DEFAULT + "\n[report]\ncontrol = true\nseeds = [7, 9]\n"


@pytest.fixture
def play(tmp_path: Path, make_world: Callable[..., Any]) -> Callable[[str], Any]:
    def run(recipe: str) -> Any:
        world = make_world(tmp_path, recipe)
        world.ddo("selfplay", "recipe.toml").check_returncode()
        return world

    return run


def judged(world: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(fact["plan"], fact["role"]): fact for fact in world.facts("judged")}


def evaluation(world: Any, fact: dict[str, Any]) -> dict[str, Any]:
    return json.loads((world.out / fact["evaluation"]).read_text())


def test_base_and_winner_are_judged_with_three_seeds_that_selected_nothing(play: Callable[[str], Any]) -> None:
    world = play(DEFAULT)
    facts = judged(world)
    assert set(facts) == {("recipe", "base"), ("recipe", "winner")}
    [winner] = world.facts("winner")
    assert facts["recipe", "winner"]["network"] == winner["network"]
    for fact in facts.values():  # [evaluation] has seed 1, the reference sets of two rounds have 1 and 2
        assert evaluation(world, fact)["seeds"] == ["3", "4", "5"]
    assert facts["recipe", "winner"]["selected_by"] == winner["score"]
    assert facts["recipe", "winner"]["score"] == pytest.approx(winner["score"] + 0.011)


def test_the_terminal_the_status_and_the_report_show_both_numbers_named(play: Callable[[str], Any]) -> None:
    world = play(DEFAULT)
    before = (world.folder / "notes").read_text()
    again = world.ddo("selfplay", "recipe.toml")
    assert (world.folder / "notes").read_text() == before
    status = world.ddo("selfplay", "recipe.toml", "--status").stdout
    world.ddo("report", str(world.out)).check_returncode()
    page = (world.out / "report.html").read_text()
    fact = judged(world)["recipe", "winner"]
    row = ["winner", f"{fact['score']:.4g} ± 0.10", f"{fact['selected_by']:.4g}", "0.500"]
    for shown in (again.stdout, status):
        lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in shown.splitlines()]
        assert ["fresh seeds", "selection", "recall"] in lines and row in lines
    assert "Numbers to publish" in page and all(f"<td>{cell}</td>" in page for cell in (row[0], *row[2:]))
    assert f'<td class="best">{row[1]}</td>' in page


def test_a_control_is_played_beside_it_and_judged(play: Callable[[str], Any]) -> None:
    world = play(CONTROLLED)
    facts = judged(world)
    assert set(facts) == {("recipe", "base"), ("recipe", "winner"), ("recipe-control", "control")}
    control = [fact for fact in world.facts("evaluated") if fact["plan"] == "recipe-control" and fact["candidate"]]
    assert {fact["candidate"]["objective"] for fact in control} == {"mle"}
    assert {fact["round"] for fact in control} == {1, 2}
    roles = [line.split()[0] for line in world.ddo("selfplay", "recipe.toml").stdout.splitlines()[2:5]]
    assert roles == ["base", "control", "winner"]
    printed = world.ddo("selfplay", "recipe.toml", "--dry-run").stdout
    assert "# recipe judgement of the winner" in printed and "# recipe-control judgement of the control" in printed


def test_seeds_that_select_are_refused(tmp_path: Path, make_world: Callable[..., Any]) -> None:
    world = make_world(tmp_path, DEFAULT + "\n[report]\nseeds = [4, 1]\n")
    done = world.ddo("validate", "recipe.toml")
    assert done.returncode == 2
    assert "report.seeds: 1 is also in evaluation.seeds, which selects networks; use another seed" in done.stderr


def test_a_control_that_nothing_would_judge_is_refused(tmp_path: Path, make_world: Callable[..., Any]) -> None:
    done = make_world(tmp_path, CONTROLLED).ddo("validate", "recipe.toml", "--set", "report.enabled=false")
    assert done.returncode == 2
    assert "report.control: has no effect with report.enabled = false" in done.stderr


def test_what_is_judged_can_be_changed_after_a_run_and_repeats_no_round(play: Callable[[str], Any]) -> None:
    world = play(RECIPE)
    before = world.notes()
    (world.folder / "recipe.toml").write_text(CONTROLLED)
    world.ddo("selfplay", "recipe.toml").check_returncode()
    assert [note for note in world.notes()[len(before) :] if "train" in note and "r01" in note] == [control(world, 1)]
    assert status(world).count("recipe (standin), 2 rounds") == 1 and status(world).endswith("\nfinished\n")
    (world.folder / "recipe.toml").write_text(RECIPE)
    world.ddo("selfplay", "recipe.toml").check_returncode()
    assert "control" not in status(world) and status(world).endswith("\nfinished\n")


def test_the_numbers_of_a_run_with_other_settings_are_not_shown(play: Callable[[str], Any]) -> None:
    world = play(DEFAULT)
    (world.folder / "recipe.toml").write_text(RECIPE.replace("alpha = [2.0, 3.0]", "alpha = [1.5]"))
    done = world.ddo("selfplay", "recipe.toml")
    assert "fresh seeds" not in done.stdout + status(world) and "Best: 44.6" in done.stdout


def test_a_dry_run_names_what_the_rounds_of_the_control_selected(play: Callable[[str], Any]) -> None:
    world = play(CONTROLLED)
    printed = world.ddo("selfplay", "recipe.toml", "--dry-run").stdout
    assert "BEST_OF_ROUND_1" not in printed
    assert all(str(world.out / fact["network"]) in printed for fact in world.facts("selected") if fact["round"] == 1)


def control(world: Any, number: int) -> str:
    """What the control's training in a round notes."""
    [selected] = [
        fact for fact in world.facts("selected") if fact["plan"] == "recipe-control" and fact["round"] == number
    ]
    return f"train {Path(selected['network']).parent.name}"


def status(world: Any) -> str:
    return world.ddo("selfplay", "recipe.toml", "--status").stdout
