"""Sampling VAR: one branch unless there is guidance, and the log-probability of every token for free.

Upstream's own sampler always runs two branches, of which guidance 0 uses one; decodes what it drew; draws for a whole
batch at once; and leaves its key-value caches behind if an exception passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddo_plugin import token_logp

Choose = Callable[[Tensor], Tensor]  # logits [N, l, V] -> tokens [N, l]
Embed = Callable[[Tensor, Tensor, float], Tensor]  # tokens [N, l], their logits, position in 0..1 -> [N, l, Cvae]


class Drawn(NamedTuple):
    """Token pyramids of a network, all scales in a row."""

    tokens: Tensor  # [N, L]
    inputs: Tensor  # [N, L - l, Cvae] what the network's forward takes besides the label; l tokens have no input
    logp: Tensor  # [N, L] log-probability of each token given its label and the scales before, in fp32
    canvas: Tensor  # [N, Cvae, H, W] the features that all scales add up to, for the decoder


def together(generator: torch.Generator | None) -> Choose:
    """Tokens drawn as they are distributed, for the whole batch in one call, as upstream does."""

    def choose(logits: Tensor) -> Tensor:
        drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, replacement=True, generator=generator)
        return drawn.view(logits.shape[:2])

    return choose


@torch.no_grad()  # inference_mode would not do: `inputs` are saved for a backward pass
def sample(var: Any, labels: Tensor, choose: Choose, *, guidance: float = 0.0, embed: Embed | None = None) -> Drawn:
    """One pyramid a label. Guidance, which is for looking at images, grows over the scales from 0.

    Under autocast it takes the data types of the network's forward, not of upstream's sampler, so that both find the
    same probabilities: embeddings and quantiser in fp32, blocks in the type of a matrix product.
    """
    quantizer, count, scales = var.vae_quant_proxy[0], len(labels), len(var.patch_nums)
    branches = 2 if guidance else 1
    if guidance:
        labels = torch.cat([labels, torch.full_like(labels, var.num_classes)])
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
            position = scale / max(scales - 1, 1)
            if guidance:
                with_label, without = logits.chunk(2)
                logits = (1 + guidance * position) * with_label - guidance * position * without
            tokens.append(choose(logits))
            logps.append(token_logp(logits, tokens[-1]))
            with _full_precision(labels):
                vectors = embed(tokens[-1], logits, position) if embed else quantizer.embedding(tokens[-1])
                patches = vectors.transpose(1, 2).reshape(count, var.Cvae, side, side)
                canvas, following = quantizer.get_next_autoregressive_input(scale, scales, canvas, patches)
                if scale == scales - 1:
                    break
                inputs.append(following.reshape(count, var.Cvae, -1).transpose(1, 2))
                end = begin + inputs[-1].shape[1]
                hidden = (var.word_embed(inputs[-1]) + positions[:, begin:end]).repeat(branches, 1, 1)
                begin = end
    return Drawn(torch.cat(tokens, 1), torch.cat(inputs, 1), torch.cat(logps, 1), canvas)


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
