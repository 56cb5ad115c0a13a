"""Fakes for a training step of VAR: sampled from the reference during training, or read from a reference set."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ddo_integrations.var.draw import full_precision, matmul_dtype, sample, through_pixels, together
from ddo_plugin import Fakes, RefsetFakes, to_device


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
    """Fakes sampled from the reference with the labels of the real samples.

    Sampling gives their log-probabilities, but not those of tokens that were encoded again, nor in another precision
    than that of the training step.
    """

    def __init__(self, reference: Any, vae: Any, *, from_pixels: bool, guidance: float, in_fp32: bool):
        self.reference, self.vae = reference, vae
        self.from_pixels, self.guidance, self.in_fp32 = from_pixels, guidance, in_fp32

    def draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor | None]:
        of_training = matmul_dtype(self.reference.pos_start)
        with full_precision(labels) if self.in_fp32 else nullcontext():
            drawn = sample(self.reference, labels, together(generator), guidance=self.guidance)
            same_precision = matmul_dtype(self.reference.pos_start) == of_training
        if not self.from_pixels:
            return Batch(labels, drawn.tokens, drawn.inputs), drawn.logp if same_precision else None
        tokens = through_pixels(self.vae, drawn.f_hat)
        return Batch(labels, tokens, inputs_of(self.vae.quantize, tokens)), None


class StoredFakes:
    """Fakes from a reference set of tokens, with the labels and log-probabilities that are stored there."""

    def __init__(self, fakes: Fakes, quantizer: Any):
        self.fakes, self.quantizer = fakes, quantizer

    def draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor | None]:
        if isinstance(self.fakes, RefsetFakes):
            tokens, numbers, logp = self.fakes.draw_scored(len(labels))
        else:
            (tokens, numbers), logp = self.fakes.draw(len(labels)), None
        assert numbers is not None, "checked when the run was configured"
        device = labels.device
        tokens = to_device(tokens, device).long()
        batch = Batch(to_device(numbers, device), tokens, inputs_of(self.quantizer, tokens))
        return batch, None if logp is None else to_device(logp, device)


def inputs_of(quantizer: Any, tokens: Tensor) -> Tensor:
    """Return [N, L - l, Cvae] the input embeddings of a forward over these tokens."""
    scales = [side * side for side in quantizer.v_patch_nums]
    with full_precision(tokens), torch.no_grad():
        inputs: Tensor = quantizer.idxBl_to_var_input(list(tokens.split(scales, dim=1)))
    return inputs
