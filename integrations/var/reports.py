"""The statistics of VAR's steps in upstream's meters and TensorBoard, read from the GPU only from time to time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

STEPS_PER_FLUSH = 16  # as in ddo-stats.jsonl
OWN, UPSTREAMS = "DDO", "AR_iter_loss"  # heads in TensorBoard


@dataclass
class Reports:
    """Collects the statistics of batches, and reports the means over each optimizer step later."""

    tail: str  # the name of the last scale's cross-entropy
    batches: list[Mapping[tuple[str, str], Tensor]] = field(default_factory=list)  # since the last optimizer step
    steps: list[tuple[int, list[tuple[str, str]], Tensor]] = field(default_factory=list)  # finished, but not reported

    def add(self, own: Mapping[str, Tensor], cross_entropy: Mapping[str, Tensor]) -> None:
        """Add the statistics of a batch."""
        heads = {OWN: own, UPSTREAMS: cross_entropy}
        self.batches.append({(head, name): value for head, values in heads.items() for name, value in values.items()})

    def end_step(self, step: int, grad_norm: Tensor | None) -> None:
        """Take the means over the batches as the statistics of an optimizer step."""
        names = list(self.batches[0])
        means = torch.stack([torch.stack(list(batch.values())) for batch in self.batches]).mean(0)
        if grad_norm is not None:
            names.append(("", "tnm"))
            means = torch.cat([means, torch.as_tensor(grad_norm, dtype=means.dtype, device=means.device).view(1)])
        self.steps.append((step, names, means))
        self.batches.clear()

    @property
    def is_full(self) -> bool:
        """Return whether so many steps are unreported that they should be reported now."""
        return len(self.steps) >= STEPS_PER_FLUSH

    def flush(self, meters: Any, board: Any) -> None:
        """Report all finished steps. This waits for the GPU."""
        read = iter(torch.cat([means for _, _, means in self.steps]).tolist() if self.steps else [])
        for step, names, _ in self.steps:
            values = {name: next(read) for name in names}
            for head in (OWN, UPSTREAMS):
                board.update(
                    head=head, step=step, **{name: value for (of, name), value in values.items() if of == head}
                )
            shown = {name: value for (head, name), value in values.items() if head != UPSTREAMS}
            meters.update(Lm=values[UPSTREAMS, "Lm"], Lt=values[UPSTREAMS, self.tail], **shown)
        self.steps.clear()
