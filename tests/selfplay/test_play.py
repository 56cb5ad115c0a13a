"""Self-play with real commands: tiny scripts behind a plugin that knows no network at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddo_plugin import hookimpl
from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import EvaluationStep, RefsetStep, RoundStep
from ddo_plugin.jobs.executor import LocalExecutor, StepFailedError
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.jobs.runner import Runner
from ddo_plugin.selfplay.play import Evaluated, play
from ddo_plugin.selfplay.recipe.plan import Candidate, Plan, Round
from ddo_plugin.selfplay.report import history
from ddo_plugin.selfplay.variants import Variant

# A "network" is a file with a number, its score. Every script notes that it ran.
PROLOGUE = """
import json, pathlib, sys
def note(what):
    with open(sys.argv[1], "a") as file:
        file.write(what + "\\n")
"""
REFSET = """
note("refset")
pathlib.Path(sys.argv[2]).mkdir()
"""
# α scales the score; α = 0 collapses; α = 9 fails.
TRAIN = """
reference, out, alpha = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), float(sys.argv[4])
note(f"train {alpha:g}")
if alpha == 0:
    print("collapsed at step 7")
    sys.exit(3)
if alpha == 8:
    sys.exit(3)
if alpha == 9:
    sys.exit("no such device")
out.mkdir(exist_ok=True)
score = json.loads(reference.read_text())
for step, factor in ((1, alpha), (2, alpha * 1.5)):
    (out / f"{step}.net").write_text(json.dumps(score * factor))
    (out / f"{step}.net.ddo.json").write_text(json.dumps({"step": step}))
"""
EVALUATE = """
note("evaluate")
pathlib.Path(sys.argv[3]).write_text(json.dumps({"score": json.loads(pathlib.Path(sys.argv[2]).read_text())}))
"""


class Toy:
    """The plugin of this "upstream"."""

    def __init__(self, notes: Path):
        self.notes = notes
        self.steps: list[Any] = []

    def command(self, code: str, *arguments: object) -> Command:
        return Command([sys.executable, "-S", "-c", PROLOGUE + code, str(self.notes), *map(str, arguments)])

    @hookimpl
    def ddo_refset_command(self, step: RefsetStep) -> Command | None:
        self.steps.append(step)
        return self.command(REFSET, step.out) if step.upstream == "toy" else None

    @hookimpl
    def ddo_round_command(self, step: RoundStep) -> Command | None:
        self.steps.append(step)
        return self.command(TRAIN, step.reference, step.out, step.alpha) if step.upstream == "toy" else None

    @hookimpl
    def ddo_evaluation_command(self, step: EvaluationStep) -> Command | None:
        self.steps.append(step)
        return self.command(EVALUATE, step.network, step.out) if step.upstream == "toy" else None


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    plugin = Toy(tmp_path / "notes")
    manager = plugins.Manager()
    manager.register(plugin)
    monkeypatch.setattr(plugins, "manager", lambda: manager)
    return plugin


@pytest.fixture
def noted(toy: Toy) -> Callable[[], list[str]]:
    """What ran since the last call."""

    def take() -> list[str]:
        lines = toy.notes.read_text().splitlines() if toy.notes.exists() else []
        toy.notes.unlink(missing_ok=True)
        return lines

    return take


def candidate(alpha: float, needs_fakes: bool = True) -> Candidate:
    return Candidate("ddo", alpha, 0.1, needs_fakes)


def plan(root: Path, *candidates: Candidate, rounds: int = 2, upstream: str = "toy", **changes: Any) -> Plan:
    """Every round the same; `changes` are of each."""
    root.mkdir(exist_ok=True)
    base = root / "base.net"
    base.write_text("100")
    settings = {"data": root / "data", "lr": 0.1}
    each = replace(Round(candidates, 64, (0, 1), settings, settings, settings), **changes)
    return Plan("play", upstream, base, (each,) * rounds, 5)


def run(made: Plan, root: Path) -> Evaluated:
    return play(made, Runner(root, Journal(root / FILE_NAME), LocalExecutor()))


def facts(root: Path, name: str) -> list[dict[str, Any]]:
    return Journal(root / FILE_NAME).find(name)


ROUND = ["refset", "train 0.5", "evaluate", "evaluate"]


def test_the_lowest_score_becomes_the_next_reference_and_the_winner(
    tmp_path: Path, toy: Toy, noted: Callable[[], list[str]]
) -> None:
    root = tmp_path / "run"
    best = run(plan(root, candidate(0.8), candidate(0.5)), root)
    assert best.score == 100 * 0.5 * 0.5
    first, second = facts(root, "selected")
    assert first["network"].endswith("/1.net")
    assert json.loads((root / first["network"]).read_text()) == 50
    assert json.loads((root / second["network"]).read_text()) == 25
    rounds = [step for step in toy.steps if isinstance(step, RoundStep)]
    assert [step.reference for step in rounds[2:]] == [root / first["network"]] * 2
    [winner] = facts(root, "winner")
    assert (winner["network"], winner["score"]) == (second["network"], 25.0)
    assert winner["sha256"] == sha256_file(root / second["network"])
    assert len(facts(root, "evaluated")) == 1 + 2 * 2 * 2
    assert noted().count("refset") == 2  # one a round, for all candidates


def test_a_later_round_that_is_worse_does_not_win(tmp_path: Path, toy: Toy) -> None:
    root = tmp_path / "run"
    assert run(plan(root, candidate(2.0)), root).score == 100
    assert facts(root, "winner")[0]["network"] == "base.net"
    assert len(facts(root, "selected")) == 2  # self-play goes on from the best of its round all the same


def test_each_round_and_step_gets_its_own_seed_and_settings(tmp_path: Path, toy: Toy) -> None:
    root = tmp_path / "run"
    made = plan(root, candidate(0.5))
    run(made, root)
    assert [step.seed for step in toy.steps if not isinstance(step, EvaluationStep)] == [6, 6, 7, 7]
    assert all(step.settings == made.at(1).training for step in toy.steps)
    assert {step.seeds for step in toy.steps if isinstance(step, EvaluationStep)} == {(0, 1)}
    assert {step.count for step in toy.steps if isinstance(step, RefsetStep)} == {64}


def test_a_plan_that_needs_no_fakes_makes_none(tmp_path: Path, toy: Toy, noted: Callable[[], list[str]]) -> None:
    root = tmp_path / "run"
    run(plan(root, candidate(0.5, needs_fakes=False)), root)
    assert "refset" not in noted()
    assert {step.fakes for step in toy.steps if isinstance(step, RoundStep)} == {None}


# -- going on -----------------------------------------------------------------------------------------------------


def test_a_finished_run_runs_nothing_again_and_more_rounds_only_the_new_ones(
    tmp_path: Path, noted: Callable[[], list[str]]
) -> None:
    root = tmp_path / "run"
    made = plan(root, candidate(0.5))
    run(made, root)
    assert noted() == ["evaluate", *ROUND, *ROUND]
    journal = (root / FILE_NAME).read_text()
    assert run(made, root).score == 25
    assert noted() == []
    assert (root / FILE_NAME).read_text() == journal
    assert run(plan(root, candidate(0.5), rounds=3), root).score == 12.5
    assert noted() == ROUND


def test_a_moved_folder_goes_on_where_it_was(tmp_path: Path, noted: Callable[[], list[str]]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    run(plan(old, candidate(0.5), rounds=1), old)
    noted()
    old.rename(new)
    assert run(plan(new, candidate(0.5)), new).score == 25
    assert noted() == ROUND


def test_other_settings_are_another_run_of_the_step_they_concern(
    tmp_path: Path, noted: Callable[[], list[str]]
) -> None:
    root = tmp_path / "run"
    made = plan(root, candidate(0.5), rounds=1)
    run(made, root)
    noted()
    run(plan(root, candidate(0.5), rounds=1, evaluation={"more": 1}), root)
    assert noted() == ["evaluate"] * 3
    run(plan(root, candidate(0.5), rounds=1, training={"lr": 0.2}), root)
    assert noted() == ROUND[1:]
    run(plan(root, candidate(0.5), rounds=1, refset_count=65), root)
    assert noted() == ROUND


def test_a_failed_step_ends_the_run_and_the_next_goes_on_there(tmp_path: Path, noted: Callable[[], list[str]]) -> None:
    root = tmp_path / "run"
    with pytest.raises(StepFailedError) as failed:
        run(plan(root, candidate(9)), root)
    assert failed.value.tail == "no such device"
    assert noted() == ["evaluate", "refset", "train 9"]
    with pytest.raises(StepFailedError):
        run(plan(root, candidate(9)), root)
    assert noted() == ["train 9"]
    assert facts(root, "collapsed") == []


# -- collapse -----------------------------------------------------------------------------------------------------


def test_a_collapse_is_recorded_and_the_other_candidates_go_on(tmp_path: Path, noted: Callable[[], list[str]]) -> None:
    root = tmp_path / "run"
    made = plan(root, candidate(0), candidate(0.5), rounds=1)
    assert run(made, root).score == 50
    [collapse] = facts(root, "collapsed")
    assert (collapse["round"], collapse["why"]) == (1, "collapsed at step 7")
    noted()
    run(made, root)
    assert noted() == []  # a collapse is final, too
    assert history.load(root)["play"].ended == ""  # the plan itself went to its end


def test_a_round_in_which_all_collapse_is_the_last(tmp_path: Path, noted: Callable[[], list[str]]) -> None:
    root = tmp_path / "run"
    assert run(plan(root, candidate(0)), root).score == 100
    assert noted() == ["evaluate", "refset", "train 0"]
    assert [fact["round"] for fact in facts(root, "stopped")] == [1]
    assert history.load(root)["play"].ended == "collapsed at step 7"


def test_a_collapse_without_a_word_is_recorded_too(tmp_path: Path, toy: Toy) -> None:
    root = tmp_path / "run"
    run(plan(root, candidate(8)), root)
    assert facts(root, "collapsed")[0]["why"] == "no output"


# -- what cannot be ------------------------------------------------------------------------------------------------


def test_an_upstream_that_no_plugin_speaks_for_is_one_clear_line(tmp_path: Path, toy: Toy) -> None:
    root = tmp_path / "run"
    with pytest.raises(UserError, match="no plugin answers ddo_evaluation_command for upstream 'other'; `ddo plugins`"):
        run(plan(root, candidate(0.5), upstream="other"), root)


def test_training_that_leaves_no_snapshot_is_one_clear_line_and_no_collapse(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "run"
    monkeypatch.setattr(sys.modules[__name__], "TRAIN", "pathlib.Path(sys.argv[3]).mkdir()")
    with pytest.raises(UserError, match="holds no snapshot with a sidecar"):
        run(plan(root, candidate(0.5)), root)
    assert facts(root, "stopped") == []


def test_a_score_that_is_no_number_never_wins(tmp_path: Path) -> None:
    judged = [
        Evaluated(Variant(tmp_path / str(i)), {"score": score})
        for i, score in enumerate([float("nan"), 3.0, float("inf")])
    ]
    assert min(judged, key=lambda one: one.score).score == 3.0
    assert min([float("nan"), 3.0]) != 3.0  # why a plain minimum will not do
