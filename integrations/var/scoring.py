"""Log-probabilities of tokens under a network of VAR, without all its logits [N, L, V] at once."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ddo_integrations.var.fakes import Batch
from ddo_plugin import token_logp_from_head


class Scorer:
    """Runs upstream's forward up to its head, and the head on a chunk of tokens at a time."""

    def __init__(self, network: Any, var: Any):
        """Take a network to call, perhaps wrapped or compiled, and the plain network inside."""
        self.network, self.var = network, var
        self.before_head = functools.partial(_before_head, var)  # one object, for torch.compile

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities [N, L], and the hidden states [N, L, C] that the head takes."""
        self.var.get_logits = self.before_head
        try:
            hidden = self.network(batch.labels, batch.inputs)
        finally:
            del self.var.get_logits
        return token_logp_from_head(hidden, batch.tokens, self.var.head), hidden

    @torch.no_grad()
    def most_likely(self, hidden: Tensor) -> Tensor:
        """Return [N, L] the most likely tokens."""
        return torch.stack([self.var.head(of_sample).argmax(-1) for of_sample in hidden])


def _before_head(var: Any, hidden: Tensor, condition: Tensor) -> Tensor:
    features: Tensor = var.head_nm(hidden.float(), condition).float()
    return features
