"""`train_edm2.py --ddo --ddo-compile` in the real EDM2: both networks are compiled once, all else is as without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ddo_plugin.finetuning import statistics

pytestmark = pytest.mark.thorough

DIGEST = Path(__file__).with_name("digest.py")
FLAGS = ["--duration=2048", "--lr=1e-2", "--ddo-rampup=0"]
LAST, STATE = "network-snapshot-0000002-0.050.pkl", "training-state-0000002.pt"


def finetune(world, completed, name: str, *flags: str, torchrun: str = "") -> Path:
    process = world.finetune(f"--outdir={world.root / name}", *FLAGS, *flags, torchrun=torchrun)
    completed(process)
    printed = process.stdout + process.stderr
    assert "Recompiling" not in printed and "Graph break" not in printed  # one function, which both networks share
    return world.root / name


@pytest.fixture(scope="module")
def compiled(compiling, completed) -> Path:
    """A round of two kimg."""
    return finetune(compiling, completed, "compiled", "--ddo-compile")


def test_the_first_step_has_r_exactly_0(compiled: Path) -> None:
    rows = statistics.read(compiled / statistics.FILE_NAME)
    assert rows[0]["rewards/real"] == rows[0]["rewards/fake"] == 0
    assert rows[0]["logps/real"] == rows[0]["logps/real_ref"]
    assert rows[-1]["rewards/real"] != 0


def test_the_round_is_that_of_networks_that_are_not_compiled(compiled: Path, world, completed) -> None:
    ours, plain = (statistics.read(out / statistics.FILE_NAME) for out in (compiled, finetune(world, completed, "no")))
    assert [row["logps/real"] for row in ours] == pytest.approx([row["logps/real"] for row in plain], rel=1e-3)
    assert [row["rewards/real"] for row in ours] == pytest.approx([row["rewards/real"] for row in plain], abs=1e-3)
    assert ours != plain  # it was compiled


def test_two_ranks_with_parts_of_a_batch_begin_with_r_exactly_0(compiling, completed) -> None:
    flags = ["--ddo-compile", "--batch-gpu=32", "--duration=1024"]
    out = finetune(compiling, completed, "compiled-ranks", *flags, torchrun="--standalone --nproc_per_node=2")
    rows = statistics.read(out / statistics.FILE_NAME)
    assert len(rows) == 8
    assert rows[0]["rewards/real"] == rows[0]["rewards/fake"] == 0


def test_pristine_generate_images_samples_the_snapshot(compiled: Path, world, pristine) -> None:
    out = world.root / "compiled-samples"
    pristine("generate_images", f"--net={compiled / LAST}", f"--outdir={out}", "--seeds=0-5", "--steps=4")
    assert len(list(out.rglob("*.png"))) == 6
    assert (compiled / LAST).stat().st_size == pytest.approx(world.base.stat().st_size, rel=0.01)


def test_a_resumed_round_equals_an_uninterrupted_one_bit_for_bit(compiled: Path, compiling, completed) -> None:
    out = compiling.root / "resumed"
    shutil.copytree(compiled, out)
    for path in out.glob("*-0000002*"):
        path.unlink()
    assert finetune(compiling, completed, "resumed", "--ddo-compile") == out
    ours, whole = (
        json.loads(completed(compiling.python(DIGEST, folder / STATE, PYTHONPATH=str(compiling.repo))))
        for folder in (out, compiled)
    )
    assert ours == whole
