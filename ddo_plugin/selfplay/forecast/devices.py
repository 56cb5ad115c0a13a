"""GPUs: how much they compute at best, and their memory, from NVIDIA's data sheets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ddo_plugin.hooks.types import Arithmetic

TERA, GIB = 1e12, float(1 << 30)
USABLE = 0.85  # of the memory; the rest is for CUDA itself and for estimates that are too low (docs/plan.md)


@dataclass(frozen=True)
class Device:
    """A GPU. The peaks are operations per second without sparsity."""

    name: str
    memory: float  # bytes that torch reports
    peaks: Mapping[str, float]  # by precision; fp32 is without TF32

    def seconds(self, arithmetic: Arithmetic) -> float:
        """Return the time that one GPU needs."""
        return arithmetic.operations / (self.peaks[arithmetic.rate.precision] * arithmetic.rate.share)

    @property
    def usable(self) -> float:
        """The bytes that a training may fill."""
        return USABLE * self.memory


_HOPPER = {"fp32": 67 * TERA, "tf32": 494 * TERA, "half": 989 * TERA}
DEVICES = {
    device.name: device
    for device in (
        Device("A100", 79.1 * GIB, {"fp32": 19.5 * TERA, "tf32": 156 * TERA, "half": 312 * TERA}),  # SXM4, 80 GB
        Device("H100", 79.1 * GIB, _HOPPER),  # SXM5, 80 GB
        Device("H200", 139.8 * GIB, _HOPPER),  # SXM5, 141 GB
    )
}
