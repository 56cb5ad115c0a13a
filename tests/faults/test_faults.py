"""A disk that fails at any operation of any command, and a kill at any of them.

A command runs once for each pair of an operation on the disk (opening for writing, write, fsync, rename, link, mkdir)
and a fault, or for a share of these pairs. A system error gives one line with the path and the reason, and status 2. No
file with its final name is incomplete. The next run of the same command succeeds and removes what the first left.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import upstreams
from tests.faults.cases import CASES, PATCHING, READING, fill_with_checkouts
from tests.faults.injection import Case, inject
from tests.faults.shim import FAULTS, SIGNALS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim reads /proc")

FEW, MORE = 0.04, 0.1  # shares of all faults


def assert_survives(case: Case, world: Path, work: Path, share: float = 1.0, faults: Sequence[str] = FAULTS) -> None:
    outcome = inject(case, world, work, share=share, faults=faults)
    assert outcome.operations
    assert not outcome.problems, "\n".join(outcome.problems)


@pytest.mark.parametrize("name", ["refset make", "sample to an npz", "convert", "merge", "training"])
def test_some_faults_cost_one_line_and_nothing_else(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert_survives(CASES[name], fault_world, tmp_path, FEW)


@pytest.mark.parametrize("name", ["sample to a folder", "training"])
def test_a_signal_gives_one_line_and_the_status_of_a_shell(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert_survives(CASES[name], fault_world, tmp_path, FEW, SIGNALS)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_a_signal_at_more_operations_gives_one_line(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert_survives(CASES[name], fault_world, tmp_path, MORE, SIGNALS)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_more_faults_cost_one_line_and_nothing_else(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert_survives(CASES[name], fault_world, tmp_path, MORE)


@pytest.mark.parametrize("name", READING)
def test_a_command_that_only_reads_writes_nothing(name: str, fault_world: Path, tmp_path: Path) -> None:
    assert inject(READING[name], fault_world, tmp_path).operations == 0


@pytest.mark.parametrize(
    ("upstream", "share"),
    [("VAR", MORE), *(pytest.param(name, 0.3, marks=pytest.mark.thorough) for name in ("edm", "edm2", "VAR"))],
)
def test_a_checkout_is_patched_or_as_it_was(upstream: str, share: float, tmp_path: Path) -> None:
    if not (upstreams() / upstream).is_dir():
        pytest.skip(f"no checkout of {upstream} in {upstreams()}")
    for name, world in fill_with_checkouts(tmp_path, upstreams() / upstream).items():
        assert_survives(PATCHING[name], world, tmp_path, share, [*FAULTS, *SIGNALS])
