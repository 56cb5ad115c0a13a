"""`ddo selfplay` and `ddo report` as a person meets them, with a stand-in upstream."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 60
SLOW = {"STANDIN_SECONDS": "30"}


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def processes_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.fixture
def finished(world: Any) -> Any:
    result = world.run("--set", "policy.keep=all")
    assert result.returncode == 0, result.stderr
    return world


def test_the_best_network_is_named_and_the_same_command_again_runs_nothing(finished: Any) -> None:
    before = finished.notes()
    again = finished.run("--set", "policy.keep=all")
    winner = finished.facts("winner")[-1]
    assert again.stdout.splitlines()[0] == f"Best: {winner['score']:.4g}, {finished.out / winner['network']}"
    assert finished.notes() == before


def test_another_setting_makes_new_outputs_beside_the_old_ones(finished: Any) -> None:
    before = finished.notes()
    assert finished.run("--set", "evaluation.seeds=[2]", "--set", "policy.keep=all").returncode == 0
    new = finished.notes()[len(before) :]
    assert {line.split()[0] for line in new} == {"evaluate"}
    assert len(new) == 1 + 2 * 4 * 2


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_ends_the_children_and_leaves_a_run_that_goes_on(
    world: Any, number: signal.Signals, status: int, name: str
) -> None:
    process = world.start(**SLOW)
    wait_for(lambda: world.facts("started"))
    process.send_signal(number)
    complaint = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == status
    assert complaint.split() == f"Interrupted by {name}. Run the same command again to resume.".split()
    assert not [line for line in processes_in(world.folder) if "standin_step" in line]
    assert world.facts("failed", "abandoned") == []
    assert world.run().returncode == 0


def test_a_second_run_in_the_same_folder_is_refused_while_status_and_report_are_not(world: Any) -> None:
    first = world.start(STANDIN_SECONDS="4")
    wait_for(lambda: world.facts("evaluated") and world.facts("started")[1:])
    second = world.run()
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "another run is working in selfplay-recipe" in second.stderr
    shown = world.run("--status").stdout
    assert "base      100" in shown
    assert "running: recipe round 1 " in shown
    assert world.ddo("report", "selfplay-recipe").returncode == 0
    first.send_signal(signal.SIGTERM)
    assert first.wait(DEADLINE_S) == 143
    assert "interrupted: recipe round 1 " in world.run("--status").stdout


def test_a_step_that_always_fails_is_one_line_and_the_status_names_its_log(world: Any) -> None:
    result = world.run("--set", "training.ddo-mode=fails", "--set", "sweep.beta=[0.1]")
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: recipe round 1 training of ddo α=3 β=0.1: exit status 1: no such device; log: ")
    assert Path(line.rsplit("log: ", 1)[1]).read_text() == "no such device\n" * 2  # policy.retries is 1
    shown = world.run("--status").stdout
    assert "failed 2 times: recipe round 1 training of ddo α=3 β=0.1; log: " in shown
    assert "not running" in shown


def test_every_command_of_a_dry_run_can_be_run_by_hand_and_the_run_itself_then_names_the_same_outputs(
    world: Any,
) -> None:
    printed = world.run("--dry-run").stdout
    assert not world.out.exists()
    commands = [line for line in printed.splitlines() if not line.startswith("#")]
    assert len(commands) == 1 + 2 * (1 + 4 * 2)
    placeholders = {part for line in commands for part in Path(line.split()[4]).parts if part.isupper()}
    first_round = [line for line in commands[:10] if "SNAPSHOT" not in line]
    for line in first_round:
        Path(shlex.split(line)[5]).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(line, shell=True, check=True, env=world.env)
    by_hand = {path.name for path in world.out.rglob("*") if "-eval-" not in path.name and path.is_dir()}
    assert placeholders <= {"BEST_OF_ROUND_1.net", "SNAPSHOT.net"}
    assert world.run().returncode == 0
    assert by_hand <= {path.name for path in world.out.rglob("*") if path.is_dir()}
    assert "BEST_OF_ROUND_1" not in world.run("--dry-run").stdout  # the journal knows it now


def test_a_start_that_is_not_what_the_recipe_says_is_refused(world: Any) -> None:
    result = world.run("--set", f"sha256={'0' * 64}")
    assert result.returncode == 2
    assert "sha256" in result.stderr
    assert not world.out.exists()


def test_status_of_a_folder_without_a_run_is_one_clear_line(world: Any) -> None:
    result = world.run("--status")
    assert result.returncode == 2
    assert "no self-play run in this folder" in result.stderr


def test_two_slots_run_two_steps_at_once_each_on_its_cpus(world: Any) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU")
    process = world.start(STANDIN_SECONDS="1.5")
    wait_for(lambda: len([line for line in processes_in(world.folder) if "standin_step.py train" in line]) == 2)
    pinned = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"standin_step.py\0train" in entry.read_bytes():
                pinned.add(frozenset(os.sched_getaffinity(int(entry.parent.name))))
        except OSError:
            continue
    process.send_signal(signal.SIGTERM)
    process.wait(DEADLINE_S)
    assert len(pinned) == 2
    assert not frozenset.intersection(*pinned)


# -- ddo report -----------------------------------------------------------------------------------------------------


def test_the_report_tells_rounds_sweep_and_where_the_winner_came_from(finished: Any) -> None:
    result = finished.ddo("report", "selfplay-recipe")
    assert result.returncode == 0, result.stderr
    page = (finished.out / "report.html").read_text()
    for words in ("Score by round", "sweep", "Where the winner came from", "base.net"):
        assert words in page
    for fact in finished.facts("selected"):
        assert fact["network"] in page
    winner = finished.facts("winner")[-1]
    assert winner["sha256"] in page
    assert page.count("<svg") >= 2
    assert "src=" not in page


def test_the_report_of_a_run_that_has_only_begun_says_so(world: Any) -> None:
    world.out.mkdir()
    (world.out / "journal.jsonl").write_text(json.dumps({"fact": "begun", "settings": "x"}) + "\n")
    result = world.ddo("report", "selfplay-recipe")
    assert result.returncode == 2
    assert "no network is evaluated yet" in result.stderr
