"""`train.py --ddo --ddo-compile` in the real EDM: both networks are compiled once, and all else is as without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddo_plugin.finetuning import statistics
from tests.upstream.edm.test_training import GENERATE

pytestmark = pytest.mark.thorough

FLAGS = ["--dump=1", "--lr=3e-4", "--ddo-rampup=0"]
LAST = "network-snapshot-000002.pkl"


@pytest.fixture(scope="module")
def compiled(compiling, completed) -> Path:
    """A round of two kimg on two ranks, each of which splits its batch."""
    out = compiling.root / "compiled"
    flags = [f"--outdir={out}", "--duration=0.002", "--batch-gpu=8", "--ddo-compile", *FLAGS]
    process = compiling.finetune(*flags, torchrun="--standalone --nproc_per_node=2")
    completed(process)
    printed = process.stdout + process.stderr
    assert "Recompiling" not in printed and "Graph break" not in printed  # one function, which both networks share
    return out


def test_the_first_step_has_r_exactly_0(compiled: Path) -> None:
    rows = statistics.read(compiled / statistics.FILE_NAME)
    assert rows[0]["rewards/real"] == rows[0]["rewards/fake"] == 0  # in the second part of the batch too
    assert rows[0]["logps/real"] == rows[0]["logps/real_ref"]
    assert rows[-1]["rewards/margin"] > 0.05


def test_the_round_is_that_of_networks_that_are_not_compiled(compiled: Path, world, completed) -> None:
    out = world.root / "not-compiled"
    flags = [f"--outdir={out}", "--duration=0.002", "--batch-gpu=8", *FLAGS]
    completed(world.finetune(*flags, torchrun="--standalone --nproc_per_node=2"))
    ours, plain = (statistics.read(folder / statistics.FILE_NAME) for folder in (compiled, out))
    assert [row["logps/real"] for row in ours] == pytest.approx([row["logps/real"] for row in plain], rel=1e-3)
    assert ours != plain  # it was compiled


def test_pristine_generate_samples_the_snapshot_without_our_package(compiled: Path, world) -> None:
    flags = [f"--network={compiled / LAST}", f"--outdir={world.root / 'compiled-samples'}", "--seeds=0-5", "--steps=4"]
    made = world.python("-c", GENERATE, *flags, PYTHONPATH=str(world.repo))
    assert made.returncode == 0, made.stderr
    assert len(list((world.root / "compiled-samples").glob("*.png"))) == 6
    assert (compiled / LAST).stat().st_size == pytest.approx(world.base.stat().st_size, rel=0.01)


def test_the_round_can_be_resumed_compiled_and_not(compiled: Path, compiling, completed) -> None:
    for duration, compile_flag in (("0.003", ["--ddo-compile"]), ("0.004", [])):
        flags = [f"--outdir={compiled}", f"--duration={duration}", "--ddo-continue", *FLAGS]
        assert "Loading training state from" in completed(compiling.finetune(*flags, *compile_flag))
    rows = statistics.read(compiled / statistics.FILE_NAME)
    assert rows[-1]["step"] >= 3968 // 32
    assert all(row["nonfinite"] == 0 for row in rows)


def test_neon_compiles_the_target_alone(compiling, completed) -> None:
    out = compiling.root / "neon"
    flags = [f"--outdir={out}", "--duration=0.001", "--ddo-objective=neon", "--dropout=0", "--ddo-compile", *FLAGS]
    process = compiling.finetune(*flags)
    completed(process)
    assert "Graph break" not in process.stdout + process.stderr
    rows = statistics.read(out / statistics.FILE_NAME)
    assert rows[0].keys() == {"step", "loss/fake", "logps/fake", "nonfinite"}
    assert not any(row["nonfinite"] for row in rows)
