"""The frozen reference."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from ddo_plugin.snapshots.reference import freeze_reference


def test_a_reference_neither_learns_nor_drops_out_and_is_known_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "network.pkl"
    file.write_bytes(b"network")
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    reference = freeze_reference(network, "https://example.org/network.pkl", file)
    assert reference.network is network
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    x = torch.ones(1, 4)
    assert torch.equal(network(x), network(x))
    assert not network(x).requires_grad
    assert reference.source == "https://example.org/network.pkl"
    assert reference.sha256 == hashlib.sha256(b"network").hexdigest()
