"""Reals and fakes in one batch."""

from __future__ import annotations

from unittest.mock import create_autospec

import numpy as np
import pytest
import torch

from ddo_plugin.finetuning.fakes import fakes_alone, to_device, with_fakes
from ddo_plugin.sampling.refsets.format import RefsetFakes, write


def fakes(folder, samples: np.ndarray, labels: np.ndarray | None) -> RefsetFakes:
    return RefsetFakes(
        write(folder / "fakes", samples, labels, kind="images", reference={"sha256": None}, sampler={}, seed=0)
    )


def test_uint8_fakes_become_what_the_network_sees_and_bring_their_labels(tmp_path) -> None:
    black = fakes(tmp_path, np.zeros((5, 1, 2, 2), np.uint8), np.full(5, 2))
    clean, labels = with_fakes(black, torch.full((3, 1, 2, 2), 0.5), torch.eye(3))
    assert clean[:3].eq(0.5).all()
    assert clean[3:].eq(-1).all()
    assert labels.tolist() == [*torch.eye(3).tolist(), *[[0, 0, 1]] * 3]


def test_latents_stay_as_they_are_and_unconditional_networks_need_no_labels(tmp_path) -> None:
    latents = fakes(tmp_path, np.full((5, 4, 2, 2), 7.25, np.float32), None)
    clean, labels = with_fakes(latents, torch.zeros(2, 4, 2, 2), torch.zeros(2, 0))
    assert clean[2:].eq(7.25).all()
    assert labels.shape == (4, 0)


@pytest.mark.parametrize("labels", [np.full(5, 2), None])
def test_fakes_alone_are_the_second_half_of_the_batch_of_both(tmp_path, labels: np.ndarray | None) -> None:
    refset = fakes(tmp_path, np.arange(20, dtype=np.uint8).reshape(5, 1, 2, 2), labels)
    real, conditions = torch.zeros(3, 1, 2, 2), torch.eye(3) if labels is not None else torch.zeros(3, 0)
    torch.manual_seed(0)
    both = with_fakes(refset, real, conditions)
    torch.manual_seed(0)
    alone = fakes_alone(refset, real, conditions)
    assert all(one[3:].equal(other) for one, other in zip(both, alone, strict=True))


def test_without_fakes_the_batch_is_the_reals() -> None:
    real, labels = torch.zeros(2, 1, 2, 2), torch.eye(2)
    clean, conditions = with_fakes(None, real, labels)
    assert clean is real
    assert conditions is labels


@pytest.mark.parametrize(("place", "pinned"), [("cpu", True), ("cuda", False)])
def test_only_fakes_in_the_memory_of_the_cpu_are_pinned(place: str, pinned: bool) -> None:
    """torch refuses to pin a tensor of a GPU, where a plugin may keep its fakes."""
    drawn = create_autospec(torch.Tensor, instance=True, device=torch.device(place))
    to_device(drawn, torch.device("cuda"))
    assert drawn.pin_memory.called is pinned
