"""What goes wrong in a round: failing steps, collapses, damaged snapshots, a full disk; and what pruning leaves."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.progress import read_fraction
from ddo_plugin.cli import main
from ddo_plugin.finetuning import statistics
from ddo_plugin.hooks import plugins
from ddo_plugin.jobs import disk_space
from ddo_plugin.jobs.disk_space import DiskSpace, OutOfSpaceError
from ddo_plugin.jobs.executor import LocalExecutor, StepFailedError
from ddo_plugin.jobs.journal import FILE_NAME, Journal
from ddo_plugin.jobs.runner import DamagedError, Policy, Runner
from ddo_plugin.jobs.slots import Slot
from ddo_plugin.selfplay.play import Evaluated, play
from ddo_plugin.selfplay.recipe.plan import Candidate, Plan, Round

Play = Callable[..., Evaluated]


@pytest.fixture
def played(world: Any, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play the stand-in's rounds in this process; α = 3 is the candidate that `mode` concerns."""
    spec = importlib.util.spec_from_file_location("standin_plugin", world.folder / "site" / "standin_plugin.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    manager = plugins.Manager()
    manager.register(module)
    monkeypatch.setattr(plugins, "manager", lambda: manager)
    monkeypatch.setenv("STANDIN_NOTES", world.env["STANDIN_NOTES"])

    def run(
        mode: str = "fine",
        alphas: tuple[float, ...] = (2.0, 3.0),
        rounds: int = 2,
        *,
        retries: int = 0,
        allow_failures: bool = False,
        keep: Any = "all",
    ) -> Evaluated:
        candidates = tuple(Candidate("ddo", alpha, 0.1) for alpha in alphas)
        each = Round(candidates, 8, (1,), training={"ddo-mode": mode})
        plan = Plan("play", "standin", world.folder / "base.net", (each,) * rounds, 0)
        world.out.mkdir(exist_ok=True)
        journal = Journal(world.out / FILE_NAME)
        policy = Policy(retries, allow_failures, keep, None)
        return play(plan, Runner(world.out, journal, LocalExecutor(2), policy))

    return run


def trainings(world: Any) -> list[Path]:
    return sorted(path for path in world.out.glob("play/r*-train-*") if path.is_dir())


# -- steps that fail ------------------------------------------------------------------------------------------------


def test_a_step_that_fails_once_is_tried_again(world: Any, played: Play) -> None:
    assert played("fails-once", retries=1).score < 40
    [failed, _second_round] = world.facts("failed")
    assert (failed["status"], failed["attempt"]) == (1, 1)
    assert "a passing fault" in (world.out / failed["log"]).read_text()
    assert world.facts("abandoned") == []


def test_a_step_that_always_fails_ends_the_run_with_one_line_that_names_the_log(world: Any, played: Play) -> None:
    with pytest.raises(StepFailedError) as failure:
        played("fails", retries=2)
    assert [fact["attempt"] for fact in world.facts("failed")] == [1, 2, 3]
    line = failure.value.line()
    assert line.startswith("play round 1 training of ddo α=3 β=0.1: exit status 1: no such device; log: /")
    assert "\n" not in line
    with pytest.raises(StepFailedError):
        played("fails", retries=2)  # the user says that it is mended: it gets its tries again
    assert [fact["attempt"] for fact in world.facts("failed")] == [1, 2, 3, 4, 5, 6]


def test_if_the_recipe_allows_it_the_round_goes_on_without_what_failed(world: Any, played: Play) -> None:
    best = played("fails", allow_failures=True, retries=1)
    assert best.score == pytest.approx(100 / 2 / 2 + 0.05 + 0.1)  # by α = 2 alone
    assert len(world.facts("abandoned")) == 2
    ran = len(world.facts("failed"))
    assert played("fails", allow_failures=True, retries=1).score == best.score
    assert len(world.facts("failed")) == ran  # given up for good


def test_a_round_with_no_candidate_left_says_so(world: Any, played: Play) -> None:
    with pytest.raises(UserError, match="play round 1: no candidate is left"):
        played("fails", alphas=(3.0,), allow_failures=True)


def test_a_collapse_is_recorded_with_its_candidate_and_is_not_tried_again(world: Any, played: Play) -> None:
    played("collapses", retries=3)
    first, _ = world.facts("collapsed")
    assert (first["candidate"]["alpha"], first["why"]) == (3.0, "collapsed at step 7")
    assert world.facts("failed") == []


# -- damaged snapshots ----------------------------------------------------------------------------------------------


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_damaged_snapshot_that_was_not_evaluated_yet_is_found_and_trained_again(
    world: Any, played: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = played(rounds=1).evaluation
    shutil.rmtree(world.out)
    run, damaged = LocalExecutor.run, []

    def damaging(self: LocalExecutor, slot: Slot, command: Any, log: Path, *more: Any) -> float:
        seconds = run(self, slot, command, log, *more)
        if "-train-" in log.name and not damaged:
            damaged.append(log.with_suffix("") / "network-2.net")
            flip(damaged[0])
        return seconds

    monkeypatch.setattr(LocalExecutor, "run", damaging)
    assert played(rounds=1).evaluation == undisturbed
    [fact] = world.facts("damaged")
    assert f"{damaged[0]} is damaged: its sha256 is " in fact["why"]
    assert world.notes().count(f"train {damaged[0].parent.name}") == 3  # of the first run, and twice


def test_a_damaged_reference_is_refused_before_it_is_used(world: Any, played: Play) -> None:
    reference = played(rounds=1).network
    flip(reference)
    before = world.notes()
    with pytest.raises(DamagedError, match=r"is damaged: its sha256 is .* restore it, or delete .*-train-"):
        played(rounds=2)
    assert world.notes() == before
    shutil.rmtree(reference.parent)  # as the line says
    assert played(rounds=2).score < 20


@pytest.mark.parametrize("selected", [False, True])
def test_a_snapshot_that_went_away_before_it_was_evaluated_is_trained_again_unless_a_reference_came_from_there(
    world: Any, played: Play, selected: bool
) -> None:
    reference = played(rounds=1).network
    folder = next(path for path in trainings(world) if (path == reference.parent) is selected)
    (folder / "network-2.net").unlink()
    next(folder.glob("network-2-eval-*.json")).unlink()
    if selected:
        with pytest.raises(DamagedError, match="no longer exists, but the run needs it"):
            played(rounds=1)
        assert reference.exists()
    else:
        assert played(rounds=1).network == reference
        assert world.notes().count(f"train {folder.name}") == 2


DAMAGED = {
    "no JSON": b"x",
    "empty": b"",
    "no text": b"\xff\xfe",
    "deep": b"[" * 200_000,
    "a long number": b'{"score": ' + b"9" * 5000 + b"}",
    "a number beyond floats": b'{"score": ' + b"9" * 400 + b"}",
    "a list": b"[1]",
    "a number": b"1",
    "nothing in it": b"{}",
    "null": b'{"score": null, "step": null}',
    "text for numbers": b'{"score": "x", "step": "x"}',
    "a list for numbers": b'{"score": [1], "step": [1]}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("pattern", ["base/*-eval-*.json", "play/*/*-eval-*.json", "play/*/*.ddo.json"])
def test_a_damaged_result_is_one_line_for_self_play_and_its_report(
    world: Any, played: Play, content: bytes, pattern: str
) -> None:
    played(rounds=1, alphas=(2.0,))
    for file in world.out.glob(pattern):
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"(repeat the evaluation|delete it and its snapshot)$") as refusal:
        played(rounds=1, alphas=(2.0,))
    assert "\n" not in refusal.value.message
    reported = CliRunner().invoke(main, ["report", str(world.out)])
    assert reported.exit_code in (0, 2), reported.output  # it needs no step
    assert reported.exit_code == 2 or pattern.endswith(".ddo.json")
    assert len(reported.output.splitlines()) == 1


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_statistics_and_progress_are_left_out(world: Any, played: Play, content: bytes) -> None:
    played(rounds=1, alphas=(2.0,))
    [training] = trainings(world)
    (training / statistics.FILE_NAME).write_bytes(content + b'\n{"step": 1, "rewards/real": 0.5}\n')
    for progress in (training.with_name(training.name + ".progress"), world.out / "base" / "x.progress"):
        progress.write_bytes(content)
        assert read_fraction(progress) == 0
    assert statistics.read(training / statistics.FILE_NAME) == [{"step": 1, "rewards/real": 0.5}]
    assert CliRunner().invoke(main, ["report", str(world.out)]).exit_code == 0


# -- room on the disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(where)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_step_starts_only_if_there_is_room_for_what_the_last_of_its_kind_took(
    world: Any, played: Play, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.out.symlink_to(small_disk)
    monkeypatch.setenv("STANDIN_BYTES", str(300_000))  # 600 kB a training
    with pytest.raises(OutOfSpaceError, match=r"MiB are free, but the next step needs .*free some space"):
        played(rounds=4, alphas=(2.0, 2.5, 2.75, 2.9), keep="all")
    assert world.facts("failed") == []
    finished = len(world.facts("finished"))
    assert finished > 1
    monkeypatch.setenv("STANDIN_BYTES", "10")
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    before = len(world.notes())
    assert played(rounds=4, alphas=(2.0, 2.5, 2.75, 2.9)).score < 10
    assert len(world.notes()) > before
    outputs = [fact["out"] for fact in world.facts("finished")]
    assert len(outputs) == len(set(outputs))  # nothing finished was made again


def test_a_step_that_fills_the_disk_stops_the_run_cleanly_and_counts_as_no_failure(
    world: Any, played: Play, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.out.symlink_to(small_disk)
    monkeypatch.setenv("STANDIN_BYTES", str(10 << 20))
    with pytest.raises(OutOfSpaceError, match=r"the disk is full .*log: .*\.log"):
        played(retries=5, allow_failures=True)
    assert world.facts("failed", "abandoned") == []
    monkeypatch.setenv("STANDIN_BYTES", "10")
    for left in small_disk.rglob("*.tmp"):
        left.unlink()
    assert played().score < 20


def test_a_journal_on_a_full_disk_stays_whole(small_disk: Path) -> None:
    journal = Journal(small_disk / FILE_NAME)
    journal.append("finished", out="a")
    with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 65536):
            pass
    with pytest.raises(UserError, match=r"cannot write to .*journal\.jsonl \(No space left on device\)"):
        for number in range(100_000):
            journal.append("finished", out=f"{number}" * 50)
    again = Journal(small_disk / FILE_NAME)
    assert again.facts == journal.facts
    (small_disk / "filler").unlink()
    again.append("finished", out="b")
    assert Journal(small_disk / FILE_NAME).facts[-1] == {"fact": "finished", "out": "b"}


def test_steps_that_run_at_once_share_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / FILE_NAME)
    journal.append("finished", kind="training", out="old", measured={"seconds": 1.0, "bytes": 1000})
    monkeypatch.setattr(
        disk_space.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, disk_space.RESERVE + 1500)
    )
    room = DiskSpace(tmp_path, journal)
    with room.reserved(tmp_path / "a", "training"):
        with pytest.raises(OutOfSpaceError), room.reserved(tmp_path / "b", "training"):
            pass
        with room.reserved(tmp_path / "c", "evaluation"):
            pass  # nothing is known of its size
        (tmp_path / "a").write_bytes(b"x" * 1000)  # written by now, and no longer counted as free by the system
        with room.reserved(tmp_path / "b", "training"):
            pass


# -- pruning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "left"), [("all", 8), (3, 6), ("best", 2), (0, 2)])
def test_pruning_leaves_the_best_of_each_round_and_whatever_was_selected(
    world: Any, played: Play, keep: Any, left: int
) -> None:
    best = played(keep=keep)
    assert len(list(world.out.rglob("network-?.net"))) == left
    assert best.network.exists()
    assert all((world.out / fact["network"]).exists() for fact in world.facts("selected", "winner"))
    assert len(world.facts("evaluated")) == 9
    before = world.notes()
    assert played(keep=keep).score == best.score
    assert world.notes() == before


@pytest.mark.parametrize(("keep", "left"), [("all", 4), (3, 0), ("best", 0)])
def test_training_states_do_not_outlive_their_round(world: Any, played: Play, keep: Any, left: int) -> None:
    played(keep=keep)
    assert len(list(world.out.rglob("state"))) == left
    before = world.notes()
    played(keep=keep)
    assert world.notes() == before


def test_the_training_state_of_an_unfinished_round_stays(world: Any, played: Play) -> None:
    """It is needed if the training is to continue, and if its snapshots are damaged."""
    script = world.folder / "site" / "standin_step.py"
    whole = script.read_text()
    failing = 'elif "r02-train" in str(source):\n    sys.exit(5)\nelse:\n    write(out'
    script.write_text(whole.replace("else:\n    write(out", failing))
    with pytest.raises(StepFailedError):
        played(keep="best", alphas=(2.0,))
    assert [state.parent.name[:9] for state in world.out.rglob("state")] == ["r02-train"]
    script.write_text(whole)
    played(keep="best", alphas=(2.0,))
    assert list(world.out.rglob("state")) == []


def test_what_was_not_evaluated_is_never_pruned(world: Any, played: Play) -> None:
    script = world.folder / "site" / "standin_step.py"
    failing = 'elif "network-2" in source.name:\n    sys.exit(5)\nelse:\n    write(out'
    script.write_text(script.read_text().replace("else:\n    write(out", failing))
    played(keep=0, allow_failures=True, rounds=1)
    assert sorted(path.name for path in world.out.rglob("network-?.net")) == ["network-1.net"] + ["network-2.net"] * 2


def test_a_kill_between_the_fact_and_the_deletion_leaves_nothing_behind(world: Any, played: Play) -> None:
    played(keep="best")
    gone = world.out / world.facts("pruned")[0]["network"]
    gone.write_text("still here")
    played(keep="best")
    assert not gone.exists()
