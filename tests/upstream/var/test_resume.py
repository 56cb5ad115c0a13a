"""A round of VAR that is killed goes on, and ends as if it had not been."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ddo_plugin.finetuning import statistics
from ddo_plugin.snapshots import sidecar

pytestmark = pytest.mark.thorough

STEPS = 6
ROUND = ["--bs=16", "--ddo_beta=0.05", f"--ddo_iters={STEPS}", "--ddo_save=1", "--ddo_state=2", "--tblr=5e-3", "--ac=2"]
LAST = "ar-ckpt-last.pth"


def tensors(value: object, name: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a training checkpoint."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: tensor for part, item in items for key, tensor in tensors(item, f"{name}/{part}").items()}
    return {}


def assert_same_end(one: Path, other: Path) -> None:
    """Weights, optimizer and random states, and all statistics but those of a step that was done twice."""
    states = [tensors(torch.load(folder / LAST, map_location="cpu")["trainer"]) for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert [name for name, value in states[0].items() if not torch.equal(value, states[1][name])] == []
    rows = [statistics.read(folder / statistics.FILE_NAME) for folder in (one, other)]
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def start(world):
    """A function: folder, further flags -> the command that runs a round there."""

    def command(name: str, *flags: object, torchrun: str = "") -> list[str]:
        own = [f"--ddo={world.base}", *ROUND, f"--local_out_dir_path={name}", *flags]
        return world.train_command(*own, torchrun=torchrun)

    return command


def killed_after(world, command: list[str], snapshot: Path) -> None:
    """Run it until this snapshot is there, then kill all of it; torchrun's ranks are in sessions of their own."""
    psutil = pytest.importorskip("psutil")
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=world.root,
        env=world.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not snapshot.exists():
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    found = psutil.Process(process.pid)
    for part in [found, *found.children(recursive=True)]:
        part.kill()
    process.wait()


@pytest.mark.parametrize(
    ("flags", "torchrun"),
    [
        ([], ""),
        (["--workers=1", "--ddo_fakes_from=tokens"], ""),
        ([], "--standalone --nproc_per_node=2"),
        (["--ddo_beta=auto", "--ddo_probe=3"], "--standalone --nproc_per_node=2"),
    ],
    ids=["alone", "with a worker, from tokens", "two ranks", "two ranks, beta chosen"],
)
def test_killed_or_paused_and_resumed_equals_uninterrupted(flags, torchrun, start, world, completed, tmp_path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    completed(world.python(*start(str(whole), *flags, torchrun=torchrun)))
    command = start(str(broken), *flags, torchrun=torchrun)
    killed_after(world, command, broken / "var_d2-ddo-0003.pth")
    assert not (broken / LAST).exists()
    completed(world.python(*command))
    assert "resume from ep0, it4" in (broken / "stdout.txt").read_text()
    assert_same_end(whole, broken)

    paused = tmp_path / "paused"
    for pause_after in (1, 3, 9):
        completed(world.python(*start(str(paused), *flags, f"--ddo-pause-after={pause_after}", torchrun=torchrun)))
        assert len(sidecar.steps(paused)) == min(pause_after, STEPS)
    assert_same_end(whole, paused)


def test_a_truncated_last_checkpoint_is_set_aside_and_the_state_before_is_used(start, world, completed) -> None:
    folder = world.root / "truncated"
    completed(world.python(*start("truncated")))
    whole = world.root / "untouched"
    shutil.copytree(folder, whole)
    for name in (LAST, "ar-ckpt-best.pth"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1000])
    out = completed(world.python(*start("truncated")))
    assert f"{LAST} is damaged" in out
    assert (folder / f"{LAST}.damaged").exists()
    assert_same_end(whole, folder)


def test_a_finished_round_is_not_begun_again(start, world, completed, refused) -> None:
    completed(world.python(*start("finished", "--ddo_iters=2")))
    assert "this round is finished" in refused(world.python(*start("finished", "--ddo_iters=2")))
    weights = world.root / "finished" / LAST
    before = weights.stat()
    again = world.python(*start("finished", "--ddo_iters=2", "--ddo-continue"))
    completed(again)
    assert "this round is finished; nothing to do" in again.stderr
    assert weights.stat() == before
    other = world.python(*start("finished", "--ddo_iters=2", "--ddo-continue", "--ddo_beta=0.1"))
    assert "belongs to a round with --ddo-beta=0.05, not 0.1" in refused(other)


def test_a_round_goes_on_with_the_settings_and_ranks_that_it_began_with(start, world, refused) -> None:
    command, folder = start("began"), world.root / "began"
    killed_after(world, command, folder / "var_d2-ddo-0003.pth")
    assert "belongs to a round with --ddo-beta=0.05, not 0.1" in refused(
        world.python(*start("began", "--ddo_beta=0.1"))
    )
    process = world.python(*start("began", torchrun="--standalone --nproc_per_node=2"))
    assert "belongs to a round with ranks=1, not 2" in process.stderr
