"""kill -9 at any moment: nothing finished is done again, and the run ends as an undisturbed one does."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddo_plugin.base.files import sha256_file
from ddo_plugin.jobs.journal import FILE_NAME, read

DRIVER = Path(__file__).with_name("driver.py")
KINDS = ("grid", "adaptive", "merging")
LIMIT_S = 60

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="finds the processes of a run in /proc")


def start(world: Any, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(DRIVER), str(world.folder), kind]
    env = {**world.env, "STANDIN_SECONDS": "0.02"}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(world: Any, kind: str = "grid") -> None:
    process = start(world, kind)
    complaint = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 0, complaint


def processes_in(folder: Path) -> list[int]:
    """Processes whose command line or working files are in the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def kill(process: subprocess.Popen[str], folder: Path) -> None:
    """The run's process group first, then the commands that it started, which have groups of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    while left := processes_in(folder):
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.002)


def facts(world: Any) -> list[str]:
    """What the journal says, but for what a clock measured."""
    return sorted(str({k: v for k, v in fact.items() if k != "measured"}) for fact in world.facts())


def winner(world: Any) -> tuple[str, str]:
    [fact] = world.facts("winner")
    return fact["sha256"], sha256_file(world.out / fact["network"])


def files(world: Any) -> dict[str, str]:
    """Every output by name and contents; logs tell of attempts."""
    found = [path for path in world.out.rglob("*") if path.is_file() and path.suffix not in (".log", ".lock", ".jsonl")]
    return {path.relative_to(world.out).as_posix(): sha256_file(path) for path in found if path.name != ".lock"}


def finished(world: Any) -> set[str]:
    """Steps as they are noted: names of outputs, and of what a training had left when it paused."""
    parts = [(Path(fact["out"]).name, fact.get("part")) for fact in world.facts("finished")]
    return {name if part is None else f"{name}@{part}" for name, part in parts}


@pytest.fixture
def undisturbed(tmp_path: Path, make_world: Callable[..., Any], kind: str) -> Any:
    """A world in which the run went through, at the path at which the killed one will run too."""
    world = make_world(tmp_path / "world")
    finish(world, kind)
    assert world.facts("collapsed")
    assert bool(world.facts("dropped")) == (kind == "adaptive")
    return world


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        ("grid", 10),
        ("adaptive", 8),
        ("merging", 5),
        *(pytest.param(kind, 50, marks=pytest.mark.thorough) for kind in KINDS),
    ],
)
def test_killed_at_random_moments_a_run_ends_with_the_same_facts_and_redoes_nothing_finished(
    kind: str, kills: int, tmp_path: Path, undisturbed: Any, make_world: Callable[..., Any]
) -> None:
    wanted, network, made = facts(undisturbed), winner(undisturbed), files(undisturbed)
    shutil.rmtree(undisturbed.folder)
    world, moments = make_world(tmp_path / "world"), random.Random(7)
    times = 0
    while times < kills:
        before = finished(world)
        noted = len(world.notes())
        process = start(world, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.1, 0.9))
        done = process.poll() is not None
        kill(process, world.folder)
        repeated = [line.split()[1] for line in world.notes()[noted:]]
        assert before.isdisjoint(repeated)
        if done:  # through before the kill: from the beginning again
            assert process.returncode == 0
            assert facts(world) == wanted
            shutil.rmtree(world.out)
            continue
        times += 1
    finish(world, kind)
    assert facts(world) == wanted
    assert winner(world) == network
    assert files(world) == made
    finish(world, kind)
    assert facts(world) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_journal_cut_short_in_its_last_line_goes_on(kind: str, undisturbed: Any) -> None:
    wanted, journal = facts(undisturbed), undisturbed.out / FILE_NAME
    for cut in (1, 40, 400):
        os.truncate(journal, journal.stat().st_size - cut)
        finish(undisturbed, kind)
        assert facts(undisturbed) == wanted


def test_a_run_whose_own_process_alone_was_killed_ends_what_it_left_running(world: Any) -> None:
    command = [sys.executable, str(DRIVER), str(world.folder), "grid"]
    process = subprocess.Popen(command, env={**world.env, "STANDIN_SECONDS": "30"}, start_new_session=True)
    end = time.monotonic() + LIMIT_S
    while len(processes_in(world.folder)) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    [orphan] = processes_in(world.folder)
    finish(world)
    assert not Path(f"/proc/{orphan}").exists() or "Z" in Path(f"/proc/{orphan}/stat").read_text().split()[2]
    assert len(world.notes()) == len(set(world.notes()))
    assert read(world.out / FILE_NAME)[-1]["fact"] == "winner"
