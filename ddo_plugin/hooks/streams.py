"""Random streams of samples: sample i depends on (seed, i) only, not on the batch size or the number of ranks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError

_STREAMS = 1 << 32  # torch's CPU generator uses 32 bits of its seed
_STRIDE = 100_000_007  # between two seeds; seeds less than 5970 apart share no stream in sets of up to 660 000 samples


class SampleGenerators:
    """One generator for each sample of a batch, seeded by the seed of the set and the number of the sample."""

    def __init__(self, seed: int, indices: Iterable[int], device: torch.device | str = "cpu"):
        self.indices = [int(i) for i in indices]
        streams = [(seed * _STRIDE + i) % _STREAMS for i in self.indices]
        self.generators = [torch.Generator(device).manual_seed(stream) for stream in streams]

    def randn(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return [N, *shape] standard normal numbers."""
        return torch.stack([torch.randn(shape, generator=g, device=g.device, dtype=dtype) for g in self.generators])

    def rand(self, *shape: int) -> Tensor:
        """Return [N, *shape] numbers uniform in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=g, device=g.device) for g in self.generators])

    def randint(self, high: int) -> Tensor:
        """Return [N] integers in [0, high)."""
        return torch.stack([torch.randint(high, (), generator=g, device=g.device) for g in self.generators])

    def check(self, samples: Tensor) -> None:
        """Refuse samples [N, ...] that are not finite; as pixels they would be black."""
        finite = samples.isfinite().flatten(1).all(1)
        if not finite.all():
            broken = [i for i, good in zip(self.indices, finite.tolist(), strict=True) if not good]
            raise UserError(
                f"sample {broken[0]} is not finite ({len(broken)} of {len(finite)} in its batch): the network or the "
                "sampler diverges; check both, and the precision"
            )
