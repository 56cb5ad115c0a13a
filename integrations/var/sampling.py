"""Sampling VAR without guidance: one branch, and the log-probability of every token for free.

Upstream's own sampler always runs two branches, of which guidance 0 uses one; decodes what it drew; and leaves its
key-value caches behind if an exception passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddo_plugin.likelihood.tokens import token_logp


class Drawn(NamedTuple):
    """Token pyramids of a network, all scales in a row."""

    tokens: Tensor  # [N, L]
    inputs: Tensor  # [N, L - l, Cvae] what the network's forward takes besides the label; l tokens have no input
    logp: Tensor  # [N, L] log-probability of each token given its label and the scales before, in fp32


@torch.no_grad()  # inference_mode would not do: `inputs` are saved for a backward pass
def sample(var: Any, labels: Tensor, generator: torch.Generator | None = None) -> Drawn:
    """One pyramid a label from the conditional distribution as it is: no guidance, no top-k, no top-p.

    Under autocast it takes the data types of the network's forward, not of upstream's sampler, so that both find the
    same probabilities: embeddings and quantiser in fp32, blocks in the type of a matrix product.
    """
    quantizer, count = var.vae_quant_proxy[0], len(labels)
    with _full_precision(labels):
        condition = var.class_emb(labels)
        positions = var.lvl_embed(var.lvl_1L) + var.pos_1LC
        hidden = condition.unsqueeze(1) + var.pos_start + positions[:, : var.first_l]
        canvas = condition.new_zeros(count, var.Cvae, var.patch_nums[-1], var.patch_nums[-1])
    working = _matmul_dtype(hidden)
    modulation = var.shared_ada_lin(condition).to(working)
    tokens: list[Tensor] = []
    inputs: list[Tensor] = []
    logps: list[Tensor] = []
    begin = var.first_l
    with _key_value_cache(var):
        for scale, side in enumerate(var.patch_nums):
            hidden = hidden.to(working)
            for block in var.blocks:
                hidden = block(x=hidden, cond_BD=modulation, attn_bias=None)
            logits = var.get_logits(hidden.float(), condition)  # [N, side², V]
            drawn = torch.multinomial(logits.softmax(-1).view(-1, var.V), 1, replacement=True, generator=generator)
            tokens.append(drawn.view(count, -1))
            logps.append(token_logp(logits, tokens[-1]))
            if scale == len(var.patch_nums) - 1:
                break
            with _full_precision(labels):
                patches = quantizer.embedding(tokens[-1]).transpose(1, 2).reshape(count, var.Cvae, side, side)
                canvas, following = quantizer.get_next_autoregressive_input(scale, len(var.patch_nums), canvas, patches)
                inputs.append(following.reshape(count, var.Cvae, -1).transpose(1, 2))
                end = begin + inputs[-1].shape[1]
                hidden = var.word_embed(inputs[-1]) + positions[:, begin:end]
                begin = end
    return Drawn(torch.cat(tokens, 1), torch.cat(inputs, 1), torch.cat(logps, 1))


@contextmanager
def _key_value_cache(var: Any) -> Iterator[None]:
    """The attention layers keep keys and values inside the block, and are as before after it, however it ends."""
    before = [block.attn.caching for block in var.blocks]
    try:
        for block in var.blocks:
            block.attn.kv_caching(True)
        yield
    finally:
        for block, caching in zip(var.blocks, before, strict=True):
            block.attn.kv_caching(caching)


def _full_precision(like: Tensor) -> AbstractContextManager[Any]:
    return torch.autocast(like.device.type, enabled=False)


def _matmul_dtype(like: Tensor) -> torch.dtype:
    """What autocast, if it is on, makes of a matrix product."""
    probe = like.new_ones(1, 1)
    return (probe @ probe).dtype
