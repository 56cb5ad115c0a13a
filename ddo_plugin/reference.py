"""The frozen reference: its freezing and its fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ddo_plugin.files import sha256_file
from ddo_plugin.records import Reference


def freeze(network: nn.Module, source: str, file: Path, info: Any = None) -> Reference:
    """A network as a reference: `eval()`, no gradients, identified by the sha256 of the file it came from."""
    return Reference(network.eval().requires_grad_(False), source, sha256_file(file), info)
