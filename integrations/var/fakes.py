"""Fakes for a training step of VAR: sampled from the reference during training, or read from a reference set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ddo_integrations.var.draw import sample, together
from ddo_plugin import Fakes


@dataclass(frozen=True)
class Batch:
    """The inputs of VAR's forward."""

    labels: Tensor  # [N]; the number of classes means "no label"
    tokens: Tensor  # [N, L]
    inputs: Tensor  # [N, L - l, Cvae]

    def joined(self, other: Batch) -> Batch:
        """Return a batch with these samples followed by the others."""
        pairs = [(self.labels, other.labels), (self.tokens, other.tokens), (self.inputs, other.inputs)]
        return Batch(*map(torch.cat, pairs))

    def __len__(self) -> int:
        return len(self.labels)


class Source(Protocol):
    """A source of fakes."""

    def draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor | None]:
        """Draw a fake for each label. Return them with the reference's log-probabilities [N, L], if these are known."""


class DrawnFakes:
    """Fakes sampled from the reference with the labels of the real samples. Sampling gives their log-probabilities."""

    def __init__(self, reference: Any):
        self.reference = reference

    def draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor | None]:
        drawn = sample(self.reference, labels, together(generator))
        return Batch(labels, drawn.tokens, drawn.inputs), drawn.logp


class StoredFakes:
    """Fakes from a reference set of tokens, with the labels that are stored there."""

    def __init__(self, fakes: Fakes, quantizer: Any):
        self.fakes, self.quantizer = fakes, quantizer

    def draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor | None]:
        tokens, numbers = self.fakes.draw(len(labels))
        assert numbers is not None, "checked when the run was configured"
        tokens = tokens.to(labels.device, torch.long)
        return Batch(numbers.to(labels.device), tokens, inputs_of(self.quantizer, tokens)), None


def inputs_of(quantizer: Any, tokens: Tensor) -> Tensor:
    """Return [N, L - l, Cvae] the input embeddings of a forward over these tokens."""
    scales = [side * side for side in quantizer.v_patch_nums]
    with torch.autocast(tokens.device.type, enabled=False), torch.no_grad():
        inputs: Tensor = quantizer.idxBl_to_var_input(list(tokens.split(scales, dim=1)))
    return inputs
