"""What a snapshot of EDM or EDM2 holds."""

from __future__ import annotations

from pathlib import Path

import torch

from ddo_plugin.snapshots.pickles import contents, unpickler


def tensors(snapshot: Path) -> dict[str, torch.Tensor]:
    return contents.state_dict(contents.network_node(unpickler.read(snapshot), "ema", snapshot))
