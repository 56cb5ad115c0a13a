"""The networks that a round evaluates: snapshots, and merges of the reference and a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ddo_plugin.snapshots.merged_files import name_of

MERGED = "merged"  # folder of merged networks, within that of the training that wrote their snapshots


@dataclass(frozen=True)
class Variant:
    """The network θ_ref + w·(θ − θ_ref), where θ is a snapshot: at w = 1 the snapshot itself."""

    snapshot: Path
    w: float = 1.0

    @property
    def is_merged(self) -> bool:
        """Whether the network is another file than the snapshot."""
        return self.w != 1

    @property
    def network(self) -> Path:
        """The file of the network."""
        return self.snapshot.parent / MERGED / name_of(self.snapshot, self.w) if self.is_merged else self.snapshot


def training_of(network: Path) -> Path:
    """Return the folder of the training that a network comes from."""
    return network.parent.parent if is_merged(network) else network.parent


def snapshot_of(network: Path) -> Path:
    """Return the snapshot that a network of a run was merged from, or the network itself."""
    if not is_merged(network):
        return network
    return training_of(network) / f"{network.stem.rpartition('-w')[0]}{network.suffix}"


def is_merged(network: Path) -> bool:
    """Return whether a network of a run is a merged one."""
    return network.parent.name == MERGED
