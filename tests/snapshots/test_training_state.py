"""What torch.save wrote and a kill or a disk spoilt is told from what is whole, and from what it never wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddo_plugin.base.errors import UserError
from ddo_plugin.snapshots import training_state


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "training-state-0000001.pt"
    torch.save({"net": torch.arange(1000), "step": 3}, path)
    return path


def spoilt(data: bytes, place: int) -> bytes:
    return data[:place] + bytes(byte ^ 255 for byte in data[place : place + 16]) + data[place + 16 :]


def test_a_whole_state_is_whole(state: Path) -> None:
    assert training_state.state_is_whole(state)
    assert not training_state.state_is_damaged(state, "")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_state_that_is_cut_short_is_damaged(state: Path, share: float) -> None:
    whole = state.read_bytes()
    state.write_bytes(whole[: int(share * len(whole))])
    assert training_state.state_is_damaged(state, "")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])  # the last bytes of a zip say again what others say
def test_a_spoilt_state_is_damaged(state: Path, share: float) -> None:
    whole = state.read_bytes()
    state.write_bytes(spoilt(whole, int(share * len(whole))))
    assert training_state.state_is_damaged(state, "")


@pytest.mark.parametrize("data", [b"", bytes(1000)])
def test_a_state_that_never_reached_the_disk_is_damaged(state: Path, data: bytes) -> None:
    state.write_bytes(data)
    assert training_state.state_is_damaged(state, "")


def test_somebody_elses_file_is_refused(state: Path) -> None:
    torch.save({"net": torch.zeros(3)}, state, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="not a training state, but upstream would resume from it; move it"):
        training_state.state_is_damaged(state, "move it")
