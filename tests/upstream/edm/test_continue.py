"""The command of a round, run again: it goes on from the newest state, and leaves a finished round as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddo_plugin.base.files import sha256_file
from ddo_plugin.finetuning import statistics
from ddo_plugin.snapshots import sidecar

pytestmark = pytest.mark.thorough

FLAGS = ["--dump=1", "--lr=3e-4", "--ddo-continue"]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir()}


def test_a_round_goes_on_and_a_finished_one_stays_as_it_is(world, completed) -> None:
    out = world.root / "continued"
    common = [f"--outdir={out}", *FLAGS]
    completed(world.finetune(*common, "--duration=0.002", "--ddo-rampup=0"))
    (out / "training-state-000003.pt").write_bytes(b"cut short")  # the loop had not told of a snapshot yet
    done = world.finetune(*common, "--duration=0.004", "--ddo-rampup=0")
    assert "Loading training state from" in completed(done)
    steps = [row["step"] for row in statistics.read(out / statistics.FILE_NAME)]
    assert steps == sorted(set(steps))
    assert steps[-1] >= 3968 // 32

    before = files(out)
    again = world.finetune(*common, "--duration=0.004", "--ddo-rampup=0")
    completed(again)
    assert "training-state-000004.pt: this round is finished; nothing to do" in again.stderr
    assert files(out) == before


@pytest.mark.parametrize("torchrun", ["", "--standalone --nproc_per_node=2"])
def test_a_paused_round_goes_on_and_what_it_left_stays_as_it_was(torchrun: str, world, completed) -> None:
    out = world.root / f"paused{len(torchrun)}"
    common = [f"--outdir={out}", "--duration=0.003", "--ddo-rampup=0", "--ddo-continue"]
    for pause_after in (1, 2):
        done = world.finetune(*common, f"--ddo-pause-after={pause_after}", torchrun=torchrun)
        completed(done)
        assert "paused; run the same command without --ddo-pause-after" in done.stdout + done.stderr
        assert len(sidecar.steps(out)) == pause_after
        left = {path: sha256_file(path) for path in sidecar.snapshots(out)}
    assert "Loading training state from" in completed(world.finetune(*common, torchrun=torchrun))
    assert len(sidecar.steps(out)) == 3
    assert {path: sha256_file(path) for path in left} == left == {path: sidecar.sha256(path) for path in left}
    steps = [row["step"] for row in statistics.read(out / statistics.FILE_NAME)]
    assert steps == sorted(set(steps))


def test_the_first_start_begins_from_the_reference(world, completed) -> None:
    out = world.root / "first"
    completed(world.finetune(f"--outdir={out}", *FLAGS, "--duration=0.001"))
    assert statistics.read(out / statistics.FILE_NAME)[0]["rewards/real"] == 0
