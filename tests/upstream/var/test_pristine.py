"""Pristine VAR on a CPU and today's stack, started by `python -m ddo_plugin.checkouts.compat`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

MIXES = pytest.mark.skipif(torch.__version__ < "2.3", reason="torch does not mix VAR's precisions on a CPU")


def read(path: Path) -> dict:
    return torch.load(path, map_location="cpu")  # as upstream's automatic resume reads it: weights only


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read(folder / "ar-ckpt-last.pth")["trainer"]["var_wo_ddp"]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def alone(world, completed):
    """A folder with one epoch by one process, which is told that it runs on the CPU."""
    process = world.train_pristine("--local_out_dir_path=alone")
    completed(process)
    assert process.stderr.count("ddo: running on the CPU (DDO_DEVICE=cpu)\n") == 1
    return world.root / "alone"


def test_it_trains(alone, world):
    state = read(alone / "ar-ckpt-last.pth")
    assert (state["epoch"], state["args"]["glb_batch_size"], state["args"]["commit_id"]) == (1, 12, "[unknown]")
    assert not equal(state["trainer"]["var_wo_ddp"], read(world.base))
    assert "Traceback" not in (alone / "stderr.txt").read_text()


def test_it_repeats_itself(world, completed, alone):
    completed(world.train_pristine("--local_out_dir_path=repeated"))
    assert equal(weights(world.root / "repeated"), weights(alone))


@pytest.mark.thorough
def test_two_ranks_train_one_network(world, completed, alone):
    """Upstream alone would train two on a CPU, each without the other; their meters count both ranks' images."""
    process = world.train_pristine("--local_out_dir_path=two", ranks=2)
    completed(process)
    assert "[lrk=" not in process.stdout, "upstream's own start of ranks did not run"
    assert process.stderr.count("ddo: running on the CPU (DDO_DEVICE=cpu)\n") == 1
    args = read(world.root / "two/ar-ckpt-last.pth")["args"]
    assert (args["batch_size"], args["glb_batch_size"]) == (6, 12)
    assert "(val 12)" in (world.root / "two/stdout.txt").read_text(), "the ranks did not add up their images"


@MIXES
def test_bf16_is_bf16_on_a_cpu(world, completed, alone):
    completed(world.train_pristine("--local_out_dir_path=bf16", "--fp16=2"))
    assert not equal(weights(world.root / "bf16"), weights(alone))


@MIXES
def test_fp16_scales_its_gradients_on_a_cpu(world, completed):
    completed(world.train_pristine("--local_out_dir_path=fp16", "--fp16=1"))
    assert read(world.root / "fp16/ar-ckpt-last.pth")["trainer"]["var_opt"]["scaler"]["scale"] == 2048


def test_it_goes_on_where_it_stopped(world, completed, alone, tmp_path):
    again = shutil.copytree(alone, tmp_path / "again")
    out = completed(world.train_pristine(f"--local_out_dir_path={again}", "--ep=2"))
    assert "resume from ep1, it0" in out
    assert read(again / "ar-ckpt-last.pth")["epoch"] == 2


@pytest.mark.parametrize(
    ("fix", "words"),
    [
        ("git", "CalledProcessError"),
        ("no-group", "Default process group has not been initialized"),
        ("cpu", "CUDA|fused"),
    ],
)
def test_it_does_not_train_without(fix, words, world):
    if fix == "cpu" and torch.cuda.is_available():
        pytest.skip("it trains on the GPU")
    process = world.train_pristine("--local_out_dir_path=without", DDO_COMPAT_OFF=fix)
    assert process.returncode != 0
    assert re.search(words, process.stderr.splitlines()[-1])


def test_the_checkout_stays_as_it_was(world, alone):
    command = ["git", "-C", world.repo, "status", "--short"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
