"""Log-ratios of token models (Eq. 1): r = Σ_tokens [log p_θ − log p_ref], in fp32 under any autocast dtype.

The logits [N, L, V] are the largest tensor of a step. `token_logp` keeps one copy of them and one copy of their
gradient. `token_logp_from_head` never holds them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ddo_plugin.objective.ddo import Terms

ROWS_PER_CHUNK = 4096  # rows of V logits that are converted to fp32 at a time


class _TokenLogp(torch.autograd.Function):
    """log softmax(logits)[token], computed in chunks of rows. It saves the logits and two numbers per row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, rows_per_chunk: int) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        logp = torch.empty(len(tokens), dtype=dtype, device=logits.device)
        peak, log_sum = torch.empty_like(logp), torch.empty_like(logp)
        for first in range(0, len(tokens), rows_per_chunk):
            rows = slice(first, first + rows_per_chunk)
            chunk = logits[rows].to(dtype)
            peak[rows] = chunk.amax(1)
            chunk = chunk - peak[rows, None]  # first of all: a large common offset of the logits would cost digits
            log_p = chunk.gather(1, tokens[rows, None]).squeeze(1)
            log_sum[rows] = chunk.exp_().sum(1).log_()
            logp[rows] = log_p - log_sum[rows]
        ctx.save_for_backward(logits, tokens, peak, log_sum)
        ctx.rows_per_chunk = rows_per_chunk
        return logp

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        logits, tokens, peak, log_sum = ctx.saved_tensors
        (grad_logp,) = grad_outputs
        grad = torch.empty_like(logits)
        for first in range(0, len(tokens), ctx.rows_per_chunk):
            rows = slice(first, first + ctx.rows_per_chunk)
            chunk = logits[rows].to(peak.dtype) - peak[rows, None]
            chunk = chunk.sub_(log_sum[rows, None]).exp_().neg_()  # −softmax
            chunk[torch.arange(len(chunk), device=chunk.device), tokens[rows]] += 1
            grad[rows] = (chunk * grad_logp[rows, None]).to(grad.dtype)
        return grad, None, None


def token_logp(logits: Tensor, tokens: Tensor, rows_per_chunk: int = ROWS_PER_CHUNK) -> Tensor:
    """Return [N, L] the log-probability of each token, from logits [N, L, V], computed in fp32."""
    flat = _TokenLogp.apply(logits.reshape(-1, logits.shape[-1]), tokens.reshape(-1), rows_per_chunk)
    return flat.view(tokens.shape)


def token_logp_from_head(
    hidden: Tensor, tokens: Tensor, head: Callable[[Tensor], Tensor], rows_per_chunk: int = ROWS_PER_CHUNK
) -> Tensor:
    """Return the same as `token_logp` from the last hidden states [N, L, C], with a chunk of logits at a time."""

    def logp_of(rows: Tensor, row_tokens: Tensor) -> Tensor:
        return token_logp(head(rows), row_tokens, rows_per_chunk)

    chunks = zip(
        hidden.reshape(-1, hidden.shape[-1]).split(rows_per_chunk),
        tokens.reshape(-1).split(rows_per_chunk),
        strict=True,
    )
    keep_graph = torch.is_grad_enabled()
    parts = [
        checkpoint(logp_of, rows, row_tokens, use_reentrant=False, preserve_rng_state=False)
        if keep_graph
        else logp_of(rows, row_tokens)
        for rows, row_tokens in chunks
    ]
    return torch.cat(parts).view(tokens.shape)


def log_ratio(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """Return [N] the sums of the differences. Subtracting first keeps digits; equal networks give exactly 0."""
    return (logp - logp_ref).sum(1)


def token_terms(logp: Tensor, logp_ref: Tensor | None, n_real: int, kept: Tensor | None = None) -> Terms:
    """Return the terms of an objective from the tokens' log-probabilities [N + M, L] of n_real reals and M fakes.

    `kept` holds the positions of the reals that kept their labels, if there are fakes for these alone.
    """
    logp_real, logp_fake = logp[:n_real].sum(1), logp[n_real:].detach().sum(1)
    if logp_ref is None:
        return Terms(logp_real)
    logp_ref = logp_ref.detach()
    r, sums = log_ratio(logp, logp_ref), logp_ref.sum(1)
    return Terms(logp_real, sums[:n_real], r[:n_real], r[n_real:], logp_fake, sums[n_real:], kept)


def drop_labels(
    labels: Tensor, null_label: int, share: float = 0.5, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Replace exactly this share of the labels by `null_label`; return the labels and the positions of those kept.

    Target and reference must see the *same* dropped labels. Only samples that keep their label have a fake term
    (§3.3 of the paper: α = 0 for the unconditional part). With an exact share, shapes are static and no mean is empty.
    """
    order = torch.randperm(len(labels), device=labels.device, generator=generator)
    dropped, kept = order.tensor_split([round(share * len(labels))])
    return labels.index_fill(0, dropped, null_label), kept.sort().values
