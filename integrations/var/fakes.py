"""Samples of the reference as VAR's step takes them: drawn while it trains, or read from a reference set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ddo_integrations.var.draw import sample, together
from ddo_plugin import Fakes


@dataclass(frozen=True)
class Batch:
    """Samples as VAR's forward takes them."""

    labels: Tensor  # [N] the number of classes stands for "no label"
    tokens: Tensor  # [N, L]
    inputs: Tensor  # [N, L - l, Cvae]

    def joined(self, other: Batch) -> Batch:
        """These samples, then those."""
        pairs = [(self.labels, other.labels), (self.tokens, other.tokens), (self.inputs, other.inputs)]
        return Batch(*map(torch.cat, pairs))

    def __len__(self) -> int:
        return len(self.labels)


class Source(Protocol):
    """Where a step's fakes come from."""

    def draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor | None]:
        """As many as there are labels, and the reference's log-probabilities [N, L] where they are known."""


class DrawnFakes:
    """Drawn from the reference by the labels of the real samples; their log-probabilities come with them."""

    def __init__(self, reference: Any):
        self.reference = reference

    def draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor | None]:
        drawn = sample(self.reference, labels, together(generator))
        return Batch(labels, drawn.tokens, drawn.inputs), drawn.logp


class StoredFakes:
    """Drawn from a reference set of tokens, with the labels that they were made with."""

    def __init__(self, fakes: Fakes, quantizer: Any):
        self.fakes, self.quantizer = fakes, quantizer

    def draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor | None]:
        tokens, numbers = self.fakes.draw(len(labels))
        assert numbers is not None, "checked when the run was configured"
        tokens = tokens.to(labels.device, torch.long)
        return Batch(numbers.to(labels.device), tokens, inputs_of(self.quantizer, tokens)), None


def inputs_of(quantizer: Any, tokens: Tensor) -> Tensor:
    """[N, L - l, Cvae] the embeddings that a forward over these tokens starts from."""
    scales = [side * side for side in quantizer.v_patch_nums]
    with torch.autocast(tokens.device.type, enabled=False), torch.no_grad():
        inputs: Tensor = quantizer.idxBl_to_var_input(list(tokens.split(scales, dim=1)))
    return inputs
