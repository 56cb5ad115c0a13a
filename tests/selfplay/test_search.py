"""Adaptive search: candidates that lose are stopped at rungs, and what is left is evaluated in full."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddo_plugin import hookimpl
from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import EvaluationStep, RoundStep
from ddo_plugin.jobs.executor import LocalExecutor, StepFailedError, StoppedError
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.jobs.runner import DamagedError, Policy, Runner
from ddo_plugin.selfplay import dry_run, status
from ddo_plugin.selfplay.play import Evaluated, play
from ddo_plugin.selfplay.recipe.plan import Candidate, Plan, Round, Search
from ddo_plugin.selfplay.report import history
from ddo_plugin.selfplay.steps import Steps
from ddo_plugin.selfplay.survivors import survivors

pytest.importorskip("optuna")

SEEDS = (1, 2, 3, 4)
NOISE = (5.0, -3.0, 0.5, -2.5)  # what a seed does to every network
PROLOGUE = """
import hashlib, json, pathlib, sys
def note(what):
    with open(sys.argv[1], "a") as file:
        file.write(what + "\\n")
"""
# A network is a number. A training leaves four, ever better by the factor α; it may pause, and goes on by itself.
TRAIN = """
reference, out = map(pathlib.Path, sys.argv[2:4])
alpha, pause = float(sys.argv[4]), int(sys.argv[5])
out.mkdir(exist_ok=True)
if alpha == 0:
    sys.exit(3)
score = json.loads(reference.read_text())
for step in range(1, min(pause, 4) + 1):
    if not (out / f"{step}.net.ddo.json").exists():
        note(f"train {alpha:g} {step}")
        if alpha == 0.9 and step == 3:
            sys.exit("no such device")
        if alpha == 0.55 and step == 2:
            print("Error: collapsed at step 7", "and what a launcher says of it", sep="\\n")
            sys.exit(3)
        text = json.dumps(score * alpha**step)
        (out / f"{step}.net").write_text(text)
        told = {"step": step, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        (out / f"{step}.net.ddo.json").write_text(json.dumps(told))
(out / "0.net.ddo.json").write_text(json.dumps({"step": 0}))  # as EDM2, which also writes what it begins with
"""
EVALUATE = """
note(f"evaluate {sys.argv[4]}")
value = json.loads(pathlib.Path(sys.argv[2]).read_text())
scores = [value + noise for noise in json.loads(sys.argv[5])]
pathlib.Path(sys.argv[3]).write_text(json.dumps({"score": sum(scores) / len(scores), "scores": scores}))
"""


class Toy:
    """The plugin of this "upstream"."""

    def __init__(self, notes: Path):
        self.notes = notes
        self.steps: list[Any] = []

    def command(self, code: str, *arguments: object) -> Command:
        return Command([sys.executable, "-S", "-c", PROLOGUE + code, str(self.notes), *map(str, arguments)])

    @hookimpl
    def ddo_round_command(self, step: RoundStep) -> Command:
        self.steps.append(step)
        return self.command(TRAIN, step.reference, step.out, step.alpha, step.settings.get("ddo-pause-after", 9))

    @hookimpl
    def ddo_evaluation_command(self, step: EvaluationStep) -> Command:
        self.steps.append(step)
        noise = [NOISE[seed - 1] for seed in step.seeds]
        return self.command(EVALUATE, step.network, step.out, step.settings["num"], json.dumps(noise))


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


SEARCH = Search(rungs=(1, 2), keep=0.5, finalists=2, evaluation_seeds=SEEDS, evaluation={"num": 10})


def plan(root: Path, *alphas: float, search: Search | None = SEARCH, rounds: int = 1) -> Plan:
    root.mkdir(exist_ok=True)
    base = root / "base.net"
    base.write_text("100")
    candidates = tuple(Candidate("ddo", alpha, 0.1, needs_fakes=False) for alpha in alphas)
    each = Round(candidates, 0, SEEDS, training={"lr": 0.1}, evaluation={"num": 500}, search=search)
    return Plan("play", "toy", base, (each,) * rounds, 5)


def run(made: Plan, root: Path, slots: int = 1, **policy: Any) -> Evaluated:
    policies = replace(Policy(0, False, "all", None), **policy)
    return play(made, Runner(root, Journal(root / FILE_NAME), LocalExecutor(slots), policies))


def facts(root: Path, name: str) -> list[dict[str, Any]]:
    return Journal(root / FILE_NAME).find(name)


def trained(notes: list[str]) -> dict[str, int]:
    """How many snapshots each α got as far as."""
    return {line.split()[1]: int(line.split()[2]) for line in notes if line.startswith("train")}


def test_the_best_share_goes_on_whatever_the_order() -> None:
    scores = [9.0, 1.0, 4.0, 2.0, 8.0, 3.0, 7.0, 6.0]
    assert survivors(scores, keep=0.25) == [1, 3]
    assert survivors(scores[::-1], keep=0.25) == [4, 6]
    assert survivors(scores, keep=0.01) == [1]
    assert survivors([5.0], keep=0.01) == [0]


def test_a_score_that_is_no_number_loses() -> None:
    nan, inf = float("nan"), float("inf")
    assert survivors([nan, 1.0, inf, 2.0], keep=0.9) == [1]
    assert survivors([nan], keep=0.9) == []


def test_losers_are_stopped_at_rungs_and_the_best_is_trained_to_its_end(tmp_path: Path, noted) -> None:
    root = tmp_path / "run"
    best = run(plan(root, 0.99, 0.8, 0.7, 0.98, 0.6, 0.97), root)
    assert best.score == pytest.approx(100 * 0.6**4)
    notes = noted()
    assert trained(notes) == {"0.99": 1, "0.98": 1, "0.97": 1, "0.8": 2, "0.7": 4, "0.6": 4}
    trainings = [line for line in notes if line.startswith("train")]
    assert len(trainings) == len(set(trainings))  # going on is not beginning again
    assert notes.count("evaluate 10") == 6 + 3 + 2 * 2  # each snapshot, once; the reference itself never
    assert notes.count("evaluate 500") == 1 + 2  # the base and the finalists
    assert [fact["candidate"]["alpha"] for fact in facts(root, "dropped")] == [0.99, 0.98, 0.97, 0.8]


def test_all_candidates_are_sampled_with_the_same_seeds(tmp_path: Path, toy: Toy) -> None:
    run(plan(root := tmp_path / "run", 0.9, 0.8), root)
    assert {step.seeds for step in toy.steps if isinstance(step, EvaluationStep)} == {SEEDS}
    assert {step.seed for step in toy.steps if isinstance(step, RoundStep)} == {6}


def test_a_finished_search_runs_nothing_again_and_chooses_the_same(tmp_path: Path, noted) -> None:
    made = plan(root := tmp_path / "run", 0.9, 0.8, 0.7, 0.6, rounds=2)
    first = run(made, root, slots=3)
    assert noted()
    count = len(Journal(root / FILE_NAME).facts)
    assert run(made, root, slots=1) == first
    assert noted() == []
    assert len(Journal(root / FILE_NAME).facts) == count


def test_the_grid_after_a_search_only_goes_on_where_the_search_stopped(tmp_path: Path, noted) -> None:
    run(plan(root := tmp_path / "run", 0.9, 0.8), root)
    noted()
    run(plan(root, 0.9, 0.8, search=None), root, retries=0, allow_failures=True)
    assert [line for line in noted() if line.startswith("train")] == ["train 0.9 2", "train 0.9 3"]


def test_collapsed_and_failed_candidates_are_done_without(tmp_path: Path, noted) -> None:
    made = plan(root := tmp_path / "run", 0, 0.9, 0.91, 0.92, search=replace(SEARCH, keep=0.99, rungs=(1,)))
    best = run(made, root, allow_failures=True)
    assert [fact["candidate"]["alpha"] for fact in facts(root, "collapsed")] == [0]
    assert best.score == pytest.approx(100 * 0.91**4)  # 0.9 fails at its third snapshot
    with pytest.raises(StepFailedError, match="no such device"):
        run(plan(other := tmp_path / "other", 0.9), other)


def test_who_collapses_after_a_rung_is_out_and_a_second_start_decides_the_same(tmp_path: Path, noted) -> None:
    made = plan(root := tmp_path / "run", 0.55, 0.8, 0.7, 0.6, rounds=2)
    best = run(made, root)
    assert best.score == pytest.approx(100 * 0.6**8)
    assert {fact["why"] for fact in facts(root, "collapsed")} == {"Error: collapsed at step 7"}
    noted()
    before = Journal(root / FILE_NAME).facts
    assert run(made, root) == best
    assert noted() == []
    assert Journal(root / FILE_NAME).facts == before


def test_a_training_that_ends_before_a_rung_is_whole(tmp_path: Path, noted) -> None:
    run(plan(root := tmp_path / "run", 0.9, 0.8, search=replace(SEARCH, rungs=(4, 9))), root, allow_failures=True)
    assert trained(noted()) == {"0.9": 3, "0.8": 4}


def test_other_comparisons_after_pruning_are_refused_and_end_nothing(tmp_path: Path, toy: Toy) -> None:
    run(plan(root := tmp_path / "run", 0.8, 0.7), root, keep="best")
    other = plan(root, 0.8, 0.7, search=replace(SEARCH, evaluation={"num": 20}))
    with pytest.raises(UserError, match=r"was played with other settings, and the snapshots .* were deleted"):
        run(other, root, keep="best")
    assert facts(root, "stopped") == []
    assert len(facts(root, "winner")) == 1


def test_a_finalist_damaged_since_it_was_compared_is_trained_again(tmp_path: Path, toy: Toy) -> None:
    made = plan(root := tmp_path / "run", 0.8, 0.7)
    first = run(made, root)
    first.network.write_text("99")
    for judgement in first.network.parent.glob("*-eval-*"):
        judgement.unlink()
    Journal(root / FILE_NAME)
    lines = (root / FILE_NAME).read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["fact"] not in ("selected", "winner", "evaluated")]
    (root / FILE_NAME).write_text("".join(kept))
    assert run(made, root).score == first.score
    assert len(facts(root, "damaged")) == 1


def test_a_folder_that_holds_a_reference_is_never_thrown_away(tmp_path: Path, toy: Toy) -> None:
    run(plan(root := tmp_path / "run", 0.7, rounds=2), root)
    reference = root / facts(root, "selected")[0]["network"]
    early = reference.with_name("1.net")
    early.write_text("99")
    other = plan(root, 0.7, rounds=2, search=replace(SEARCH, evaluation={"num": 20}))
    with pytest.raises(DamagedError, match=r"1\.net is damaged"):
        run(other, root)
    assert reference.exists()


def test_a_deleted_training_that_is_stopped_on_its_way_is_not_taken_for_the_finished_one(tmp_path: Path, toy) -> None:
    made = plan(root := tmp_path / "run", 0.7, search=None)
    first = run(made, root)
    shutil.rmtree(first.network.parent)
    executor = LocalExecutor()
    runner = Runner(root, Journal(root / FILE_NAME), executor)
    task = Steps(made, runner).training(1, made.rounds[0].candidates[0], made.base, None)
    begins = f"import os, time; os.makedirs({str(task.out)!r}); time.sleep(60)"
    threading.Timer(1, executor.stop).start()
    with pytest.raises(StoppedError):
        runner.run(replace(task, command=Command([sys.executable, "-S", "-c", begins])))
    assert task.out.is_dir()
    assert not runner.is_finished(task)
    assert run(made, root) == first


def test_old_snapshots_are_pruned_whether_they_were_evaluated_or_only_compared(tmp_path: Path, toy: Toy) -> None:
    run(plan(root := tmp_path / "run", 0.9, 0.8, 0.7), root, keep="best")
    assert [path.name for path in root.rglob("*.net") if path.parent != root] == ["4.net"]


def test_status_and_report_tell_comparisons_from_judgements(tmp_path: Path, toy: Toy) -> None:
    run(plan(root := tmp_path / "run", 0.9, 0.8, 0.7), root)
    one = history.load(root)["play"]
    assert (len(one.evaluated), len(one.compared)) == (1 + 2, 3 + 2 + 2)
    journal = Journal(tmp_path / "half" / FILE_NAME)
    for fact in [fact for fact in Journal(root / FILE_NAME).facts if fact["fact"] not in ("selected", "winner")]:
        journal.append(fact.pop("fact"), **fact)
    assert "  round 1   3 of 3 candidates compared, 7 snapshots, 2 stopped" in list(status.lines(tmp_path / "half"))


def test_a_dry_run_shows_the_rungs_and_the_finalists(tmp_path: Path, toy: Toy) -> None:
    made = plan(tmp_path / "run", 0.9, 0.8)
    lines = list(dry_run.lines([made], tmp_path / "run"))
    told = [line for line in lines if line.startswith("# Round")]
    assert [line.split(":")[0] for line in told] == [
        "# Round 1, to 1 snapshot",
        "# Round 1, to 2 snapshots",
        "# Round 1, to the end",
        "# Round 1, the best 2 of all snapshots",
    ]
