"""Histories as a journal and its files tell them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ddo_plugin.finetuning import statistics
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.selfplay.report import history, report


class Story:
    """Writes the journal of a run and the files that it speaks of."""

    def __init__(self, root: Path):
        self.root = root
        self.journal = Journal(root / FILE_NAME)

    def evaluated(self, plan: str, number: int, network: str, score: float, **more: Any) -> None:
        file = self.root / f"{network}-eval.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"score": score, **more}))
        facts = {"plan": plan, "round": number, "network": network, "score": score}
        self.journal.append("evaluated", **facts, evaluation=file.relative_to(self.root).as_posix(), candidate=None)

    def selected(self, plan: str, number: int, network: str) -> None:
        self.journal.append("selected", plan=plan, round=number, network=network)


def scores(found: history.History) -> list[tuple[int, float]]:
    return [(point.round, point.score) for point in found.points]


def test_a_folder_without_a_journal_has_no_history(tmp_path: Path) -> None:
    assert history.load(tmp_path) == {}


def test_a_history_is_the_base_and_the_selected_network_of_each_round(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.evaluated("a", 0, "base", 10.0, spread=0.5)
    for number, (worse, better) in {1: (9.0, 8.0), 2: (8.6, 8.5)}.items():
        story.evaluated("a", number, f"r{number}/worse", worse)
        story.evaluated("a", number, f"r{number}/better", better)
        story.selected("a", number, f"r{number}/better")
    found = history.load(tmp_path)["a"]
    assert scores(found) == [(0, 10.0), (1, 8.0), (2, 8.5)]
    assert (found.base.score, found.base.spread) == (10.0, 0.5)
    assert found.best.network == tmp_path / "r1/better"
    assert found.best.spread == 0.0
    assert found.ended == ""


def test_a_training_that_was_deleted_to_be_done_again_is_left_out(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.evaluated("a", 0, "base", 10.0)
    for number in (1, 2):
        story.evaluated("a", number, f"r{number}/net", 10.0 - number)
        story.selected("a", number, f"r{number}/net")
    (tmp_path / "r2/net-eval.json").unlink()
    found = history.load(tmp_path)["a"]
    assert scores(found) == [(0, 10.0), (1, 9.0)]
    assert len(found.evaluated) == 2
    (tmp_path / "base-eval.json").unlink()
    assert history.load(tmp_path) == {}


def test_plans_that_share_a_base_have_histories_of_their_own(tmp_path: Path) -> None:
    story = Story(tmp_path)
    for plan, score in {"ddo": 7.0, "mle": 9.0}.items():
        story.evaluated(plan, 0, "base", 10.0)
        story.evaluated(plan, 1, f"{plan}/r1", score)
        story.selected(plan, 1, f"{plan}/r1")
    assert {name: scores(found) for name, found in history.load(tmp_path).items()} == {
        "ddo": [(0, 10.0), (1, 7.0)],
        "mle": [(0, 10.0), (1, 9.0)],
    }


def test_a_run_that_is_not_finished_has_the_history_so_far(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.evaluated("a", 0, "base", 10.0)
    story.evaluated("a", 1, "r1", 9.0)  # judged, not yet selected
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"fact": "selec')
    assert scores(history.load(tmp_path)["a"]) == [(0, 10.0)]


def test_a_candidate_that_collapsed_does_not_end_a_plan_whose_others_went_on(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.evaluated("a", 0, "base", 10.0)
    story.journal.append("collapsed", plan="a", round=1, out="r1/x", why="collapsed at step 7")
    story.evaluated("a", 1, "r1/y", 9.0)
    story.selected("a", 1, "r1/y")
    assert history.load(tmp_path)["a"].ended == ""
    story.journal.append("collapsed", plan="a", round=2, out="r2/x", why="collapsed at step 9")
    story.journal.append("stopped", plan="a", round=2, why="every candidate collapsed")
    assert history.load(tmp_path)["a"].ended == "collapsed at step 9"


def test_a_second_run_with_other_settings_replaces_the_rounds_that_it_repeats(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.evaluated("a", 0, "base", 10.0)
    for attempt, found in {"first": (9.0, 8.0), "second": (7.0,)}.items():
        for number, score in enumerate(found, 1):
            story.evaluated("a", number, f"{attempt}/r{number}", score)
            story.selected("a", number, f"{attempt}/r{number}")
    assert scores(history.load(tmp_path)["a"]) == [(0, 10.0), (1, 7.0)]


def test_a_point_has_the_samples_and_the_training_statistics_that_were_kept(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.evaluated("a", 0, "base/net", 10.0)
    story.evaluated("a", 1, "r1/net", 9.0)
    story.selected("a", 1, "r1/net")
    images = np.zeros((4, 1, 2, 2), dtype=np.uint8)
    np.save(tmp_path / "r1/net-eval.grid.npy", images)
    (tmp_path / "r1" / statistics.FILE_NAME).write_text('{"step": 0, "rewards/real": 0.5}\n')
    base, first = history.load(tmp_path)["a"].points
    assert (base.images(), base.steps()) == (None, [])
    np.testing.assert_array_equal(first.images(), images)
    assert first.steps() == [{"step": 0, "rewards/real": 0.5}]


def test_the_report_has_no_empty_figures_of_a_training_on_fakes_alone(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.evaluated("a", 0, "base/net", 10.0)
    story.evaluated("a", 1, "r1/net", 9.0)
    story.selected("a", 1, "r1/net")
    for logged, titles in {
        "logps/fake": (False, False),
        "logps/real": (False, True),
        "rewards/real": (True, False),
    }.items():
        (tmp_path / "r1" / statistics.FILE_NAME).write_text(json.dumps({"step": 0, logged: 0.5}) + "\n")
        text = report.write(tmp_path, "ddo report").read_text()
        assert tuple(f"<h2>{title}</h2>" in text for title in ("Rewards", "Likelihood drift")) == titles


def test_a_moved_folder_tells_the_same_history(tmp_path: Path) -> None:
    story = Story(tmp_path / "old")
    story.evaluated("a", 0, "base", 10.0)
    (tmp_path / "old").rename(tmp_path / "new")
    found = history.load(tmp_path / "new")["a"]
    assert found.base.network == tmp_path / "new" / "base"
