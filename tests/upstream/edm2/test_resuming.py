"""A round that was killed at a random moment ends as if it had not been: bit for bit, on one rank and on two."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddo_plugin.finetuning import statistics
from ddo_plugin.snapshots import sidecar

pytestmark = pytest.mark.thorough

DIGEST = Path(__file__).with_name("digest.py")
FLAGS = ["--duration=4096", "--batch=64", "--lr=1e-2", "--decay=4", "--ddo-rampup=0.002"]
LAST = "training-state-0000004.pt"
LAUNCHERS = {1: "", 2: "--standalone --nproc_per_node=2"}


@pytest.mark.parametrize(("ranks", "beta"), [(1, "0.5"), (2, "0.5"), (1, "auto")])
def test_a_killed_or_paused_round_ends_as_an_uninterrupted_one_bit_for_bit(
    ranks: int, beta: str, world, completed
) -> None:
    """With auto, the probe of 20 steps ends between the first state and the second."""
    whole, killed, paused = (world.root / f"{name}-{ranks}-{beta}" for name in ("whole", "killed", "paused"))
    settings = [*FLAGS, f"--ddo-beta={beta}"]
    completed(world.finetune(*settings, f"--outdir={whole}", torchrun=LAUNCHERS[ranks]))
    flags = [f"--ddo={world.base}", f"--ddo-fakes={world.fakes}", "--ddo-alpha=2", *settings]
    command = [sys.executable, *world.train_command(*flags, f"--outdir={killed}", torchrun=LAUNCHERS[ranks])]
    moment = kill_at_a_random_moment(world, command, killed)

    printed = completed(world.finetune(*settings, f"--outdir={killed}", torchrun=LAUNCHERS[ranks]))
    assert "Training from 0 kimg" not in printed
    ours, theirs = (digests(world, folder / LAST, completed) for folder in (killed, whole))
    assert {name.split("/")[1] for name in ours} >= {"net", "ema", "optimizer", "state", "loss_fn"}
    assert [name for name in theirs if ours.get(name) != theirs[name]] == [], moment
    assert theirs != digests(world, whole / LAST.replace("4", "3"), completed)
    assert statistics.read(killed / statistics.FILE_NAME) == statistics.read(whole / statistics.FILE_NAME), moment
    names = [path.name for path in sidecar.snapshots(whole)]
    assert [path.name for path in sidecar.snapshots(killed)] == names

    for pause_after in (1, 3, 9):
        done = world.finetune(
            *settings, f"--outdir={paused}", f"--ddo-pause-after={pause_after}", torchrun=LAUNCHERS[ranks]
        )
        completed(done)
        assert len(sidecar.steps(paused)) == min(pause_after, 4)
    assert digests(world, paused / LAST, completed) == theirs
    assert [path.name for path in sidecar.snapshots(paused)] == names


def kill_at_a_random_moment(world, command: list[str], out: Path) -> str:
    """Start the round and SIGKILL all of it some time after one of its states was written; returns when."""
    psutil = pytest.importorskip("psutil")
    process = subprocess.Popen(command, cwd=world.root, env=world.environment(), stdout=subprocess.DEVNULL)
    state = random.choice(("training-state-0000001.pt", "training-state-0000002.pt"))
    while not (out / state).exists():
        assert process.poll() is None
        time.sleep(0.01)
    waited = random.uniform(0, 1)
    time.sleep(waited)
    assert process.poll() is None
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        if member.is_running():
            member.kill()
    process.wait()
    psutil.wait_procs(family)
    assert not (out / LAST).exists()
    return f"{waited:.3f} s after {state}"


def digests(world, state: Path, completed) -> dict[str, str]:
    return json.loads(completed(world.python(DIGEST, state, PYTHONPATH=str(world.repo))))
