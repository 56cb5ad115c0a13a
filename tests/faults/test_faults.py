"""A disk that fails at any operation of any command, and a kill at any of them.

Each command runs once for each of its operations on the disk (opening for writing, write, fsync, rename, link, mkdir)
and each fault. A system error gives one line with the path and the reason, and status 2. No file with its final name is
incomplete. The next run of the same command succeeds and removes what the first left.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.injection import Case, inject
from tests.faults.shim import FAULTS, SIGNALS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim reads /proc")

DDO = ["-m", "ddo_plugin"]
DIGITS = ["--network=network.safetensors", "--upstream=digits", "--family=diffusion", "--data=data"]
SAMPLE = [*DDO, "sample", *DIGITS, "--seeds=0-2", "--labels=uniform"]
TRAIN = ["-m", "ddo_integrations.demo.train", "--family=diffusion", "--data=data", "--outdir=trained", "--batch=8"]
ROUND = ["--ddo=network.safetensors", "--ddo-fakes=fakes", "--steps=4", "--snap=2", "--dump=2"]
EXISTS = "already exists and is not overwritten"
EVAL = [*DDO, "eval", "samples.npz", "--ref=samples.npz", "--features=digits:data", "--metrics=fid", "--out=new.json"]

STAND_IN = {"PYTHONPATH": "{beside}/stand-in/site", "STANDIN_NOTES": "/dev/null"}
CASES = {
    "refset make": Case([*DDO, "refset", "make", *DIGITS, "--count=4", "--batch=2", "--labels=uniform", "--out=new"]),
    "refset pack": Case([*DDO, "refset", "pack", "images", "new", "--class=1"], exists=EXISTS),
    "refset unpack": Case([*DDO, "refset", "unpack", "set", "new.zip"], exists=EXISTS),
    "sample to a folder": Case([*SAMPLE, "--outdir=new", "--subdirs"]),
    "sample to an npz": Case([*SAMPLE, "--npz=new.npz"]),
    "sample to a grid": Case([*SAMPLE, "--grid=new.png"]),
    "convert": Case([*DDO, "convert", "ar-ckpt-last.pth", "new.pth"], exists=EXISTS),
    "merge": Case(
        [
            *DDO,
            "merge",
            "network.safetensors",
            "finetuned.safetensors",
            "--w=0.5,2",
            "--outdir=new",
            "--upstream=digits",
        ]
    ),
    "eval": Case(EVAL),
    "cp": Case([*DDO, "cp", "digits", "new.toml"], exists=EXISTS),
    "curve": Case(
        [*DDO, "curve", "--scales=1,2", "--out=new", "--", sys.executable, "-S", "measure.py", "{out}", "{scale}"]
    ),
    "training": Case([*TRAIN, *ROUND]),
    "training with a progress file": Case(
        [*TRAIN, *ROUND], env={"DDO_PROGRESS": "trained.progress"}, optional=("trained.progress",)
    ),
    "selfplay": Case([*DDO, "selfplay", "recipe.toml", "--out=new"], env=STAND_IN),
    "report": Case([*DDO, "report", "played"], env=STAND_IN),
}
READING = {
    "refset info": Case([*DDO, "refset", "info", "set"]),
    "refset verify": Case([*DDO, "refset", "verify", "set"]),
    "validate": Case([*DDO, "validate", "recipe.toml"], env=STAND_IN),
    "selfplay --dry-run": Case([*DDO, "selfplay", "recipe.toml", "--dry-run"], env=STAND_IN),
}
FEW, MORE = 0.04, 0.1  # shares of all faults


def assert_survives(name: str, world: Path, work: Path, share: float = 1.0, faults: Sequence[str] = FAULTS) -> None:
    outcome = inject(CASES[name], world, work, share=share, faults=faults)
    print(f"{name}: {outcome.operations} operations, {outcome.injected} faults, {len(outcome.problems)} problems")
    assert outcome.operations
    assert not outcome.problems, "\n".join(outcome.problems)


@pytest.mark.parametrize("name", ["refset make", "sample to an npz", "convert", "merge", "training"])
def test_some_faults_cost_one_line_and_nothing_else(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert_survives(name, fault_world, tmp_path, FEW)


@pytest.mark.parametrize("name", ["sample to a folder", "training"])
def test_a_signal_gives_one_line_and_the_status_of_a_shell(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert_survives(name, fault_world, tmp_path, FEW, SIGNALS)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_a_signal_at_more_operations_gives_one_line(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert_survives(name, fault_world, tmp_path, MORE, SIGNALS)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_more_faults_cost_one_line_and_nothing_else(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert_survives(name, fault_world, tmp_path, MORE)


@pytest.mark.parametrize("name", READING)
def test_a_command_that_only_reads_writes_nothing(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert inject(READING[name], fault_world, tmp_path).operations == 0
