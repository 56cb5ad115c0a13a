"""Which rank a process is: by torchrun's variables, and by torch.distributed once it runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch.distributed

from ddo_plugin.base import ranks


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def facts() -> tuple[bool, int, int, int, bool]:
    return ranks.under_torchrun(), ranks.rank(), ranks.local_rank(), ranks.world_size(), ranks.is_first()


def test_a_process_alone_is_the_first_of_one() -> None:
    assert facts() == (False, 0, 0, 1, True)


def test_torchruns_variables_count_before_the_process_group_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "5"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    assert facts() == (True, 5, 1, 8, False)


def test_without_a_local_rank_all_ranks_are_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "5")
    assert ranks.local_rank() == 5


def test_the_process_group_counts_once_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "5")
    for name, value in (("is_initialized", True), ("get_rank", 0), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    assert (ranks.rank(), ranks.world_size(), ranks.is_first()) == (0, 2, True)


def test_asking_does_not_import_torch() -> None:
    code = "import sys; from ddo_plugin.base import ranks; print(ranks.rank(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" False\n")
