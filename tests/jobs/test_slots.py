"""Slots: every GPU or CPU is somebody's, and nobody's share is empty."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ddo_plugin.base.commands import Command
from ddo_plugin.jobs import slots
from ddo_plugin.jobs.executor import LocalExecutor


def gpus(count: int) -> list[str]:
    return [slot.env[slots.GPUS_VARIABLE] for slot in slots.share(count)]


def test_gpus_are_divided_among_the_slots_by_the_names_that_the_variable_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slots.GPUS_VARIABLE, "2,5,GPU-abc,7")
    assert gpus(4) == ["2", "5", "GPU-abc", "7"]
    assert gpus(2) == ["2,5", "GPU-abc,7"]
    assert gpus(3) == ["2", "5", "GPU-abc,7"]
    assert gpus(1) == ["2,5,GPU-abc,7"]
    assert gpus(6) == ["2", "5", "GPU-abc", "7", "2", "5"]


def test_all_that_the_driver_knows_are_divided_if_the_variable_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    program.chmod(0o755)
    monkeypatch.delenv(slots.GPUS_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus(2) == ["0", "1"]
    monkeypatch.setenv(slots.GPUS_VARIABLE, "")  # none are to be used
    assert slots.share(1)[0].cpus


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_cpus_are_divided_without_overlap_while_there_are_enough(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slots.GPUS_VARIABLE, "")
    monkeypatch.setattr(slots, "cores", lambda: [0, 1, 2, 3])
    shares = slots.share(count)
    assert frozenset.union(*(slot.cpus for slot in shares)) == {0, 1, 2, 3}
    assert [slot.env["OMP_NUM_THREADS"] for slot in shares] == [str(len(slot.cpus)) for slot in shares]
    if count <= 4:
        assert sum(len(slot.cpus) for slot in shares) == 4


def test_every_slot_has_a_port_of_its_own() -> None:
    assert len({slot.env["MASTER_PORT"] for slot in slots.share(8)}) == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such system call")
def test_a_command_runs_on_its_slots_cpus_and_the_run_itself_stays_free(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    one = frozenset([min(before)])
    command = Command([sys.executable, "-c", f"import os; print(os.sched_getaffinity(0) == {set(one)})"])
    executor = LocalExecutor([slots.Slot({}, one)])
    with executor.slot() as slot:
        assert executor.run(slot, command, tmp_path / "log", tmp_path / "progress") > 0
    assert (tmp_path / "log").read_text() == "True\n"
    assert os.sched_getaffinity(0) == before
