"""What `--status` says of a journal."""

from __future__ import annotations

import json
from pathlib import Path

from ddo_plugin.jobs import folder_lock
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.selfplay import status

CANDIDATE = {"objective": "ddo", "alpha": 2.0, "beta": 0.1, "needs_fakes": True}
TWO = {"candidates": 2, "trainings": 2}


def begun(out: Path) -> Journal:
    """A base was evaluated in 10 s, a reference set made in 20 s, the first of two trainings is done in 100 s."""
    journal = Journal(out / FILE_NAME)
    journal.begin("settings")
    journal.append("plan", plan="p", upstream="u", rounds=[TWO, TWO])
    for task, kind, name, seconds in (
        ("p base evaluation", "evaluation", "base", 10.0),
        ("p round 1 reference set", "reference set", "p/refset", 20.0),
        ("p round 1 training", "training", "p/first", 100.0),
    ):
        measured = {"seconds": seconds, "bytes": 1}
        journal.append("started", task=task, kind=kind, out=name, attempt=1)
        journal.append("finished", task=task, kind=kind, out=name, measured=measured)
    journal.append("evaluated", plan="p", round=0, network="n", candidate=None, evaluation="base", score=24.0)
    journal.append("started", task="p round 1 training of b", kind="training", out="p/second", attempt=1)
    return journal


def test_a_running_step_has_its_share_and_the_rest_of_the_run_its_time(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "second.progress").write_text(json.dumps({"done": 1, "total": 2}))
    with folder_lock.hold(tmp_path):
        told = list(status.lines(tmp_path))
    assert "  base      24  n" in told
    assert "  running: p round 1 training of b, 50%" in told
    # 10 + 2 · 20 + 4 · (100 + 10) in all, of which 130 and half of 100 are gone
    assert told[-1] == "running; about 5 min left"


def test_the_networks_that_are_merged_from_a_snapshot_count_as_one_snapshot(tmp_path: Path) -> None:
    journal = Journal(tmp_path / FILE_NAME)
    journal.begin("settings")
    journal.append("plan", plan="p", upstream="u", rounds=[TWO | {"weights": 3}], judgements=2)
    names = ["net.pkl", "merged/net-w0.5.pkl", "merged/net-w1.5.pkl"]
    outs = [("training", "p/t", 100.0), ("evaluation", "base", 10.0), *(("evaluation", name, 10.0) for name in names)]
    for kind, out, seconds in outs:
        journal.append("finished", task=out, kind=kind, out=out, measured={"seconds": seconds, "bytes": 1})
    for name in names:
        done = {"candidate": CANDIDATE, "evaluation": name, "score": 1.0}
        journal.append("evaluated", plan="p", round=1, network=f"p/t/{name}", **done)
    with folder_lock.hold(tmp_path):  # a training, three evaluations, and two judgements are left
        assert list(status.lines(tmp_path))[-1] == "running; about 2 min left"


def test_without_a_process_the_step_was_interrupted_and_the_line_says_what_to_do(tmp_path: Path) -> None:
    begun(tmp_path)
    told = list(status.lines(tmp_path))
    assert "  interrupted: p round 1 training of b, 0%" in told
    assert told[-1] == "not running; run the same command again to resume"


def test_only_the_current_settings_rounds_are_told(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.append("evaluated", plan="p", round=1, network="old", candidate=CANDIDATE, evaluation="e", score=1.0)
    journal.append("selected", plan="p", round=1, network="old")
    assert "  round 1   1  ddo α=2 β=0.1  old" in list(status.lines(tmp_path))
    journal.begin("other settings")
    journal.append("plan", plan="p", upstream="u", rounds=[TWO])
    assert not [line for line in status.lines(tmp_path) if "old" in line]


def test_steps_that_went_wrong_are_told_with_their_reason(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.append("failed", task="x", out="p/second", attempt=1, status=1, log="p/second.log")
    assert f"  failed: p round 1 training of b; {tmp_path / 'p/second.log'}" in list(status.lines(tmp_path))
    journal.append("abandoned", task="x", out="p/second", attempts=1, log="p/second.log")
    told = f"  failed 1 time: p round 1 training of b; log: {tmp_path / 'p/second.log'}"
    assert told in list(status.lines(tmp_path))
    journal.append("collapsed", plan="p", round=1, out="p/first", candidate=CANDIDATE, why="collapsed at step 7")
    assert "  collapsed: p round 1 training; collapsed at step 7" in list(status.lines(tmp_path))
