"""Sampling of VAR: a single branch if there is no guidance, and the log-probability of every token at no extra cost.

Upstream's own sampler always runs two branches, although guidance 0 uses only one of them. It also decodes every
sample, draws from one random stream for the whole batch, and leaves its key-value caches behind after an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddo_plugin import token_logp

Choose = Callable[[Tensor], Tensor]  # logits [N, l, V] -> tokens [N, l]
# tokens [N, l], their logits, the scale's position in 0..1 -> [N, l, Cvae]
Embed = Callable[[Tensor, Tensor, float], Tensor]


class Drawn(NamedTuple):
    """Token pyramids of a network; the scales are concatenated."""

    tokens: Tensor  # [N, L]
    inputs: Tensor  # [N, L - l, Cvae] the input of the network's forward; the first l tokens have none
    logp: Tensor  # [N, L] log-probability of each token without guidance, given label and previous scales, in fp32
    f_hat: Tensor  # [N, Cvae, H, W] the sum of all scales' features, which the decoder takes


def together(generator: torch.Generator | None) -> Choose:
    """Return a function that draws the tokens of a whole batch in one call, like upstream."""

    def choose(logits: Tensor) -> Tensor:
        drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, replacement=True, generator=generator)
        return drawn.view(logits.shape[:2])

    return choose


@torch.no_grad()  # not inference_mode: a backward pass saves `inputs`
def sample(var: Any, labels: Tensor, choose: Choose, *, guidance: float = 0.0, embed: Embed | None = None) -> Drawn:
    """Draw a token pyramid for each label. The guidance scale rises from 0 at the first scale to `guidance`.

    Under autocast the dtypes are those of the network's forward, not of upstream's sampler, so that sampling and
    training compute the same probabilities: embeddings and quantizer in fp32, blocks in the dtype of a matrix product.
    """
    quantizer, count, scales = var.vae_quant_proxy[0], len(labels), len(var.patch_nums)
    branches = 2 if guidance else 1
    if guidance:
        labels = torch.cat([labels, torch.full_like(labels, var.num_classes)])
    with full_precision(labels):
        condition = var.class_emb(labels)
        positions = var.lvl_embed(var.lvl_1L) + var.pos_1LC
        hidden = condition.unsqueeze(1) + var.pos_start + positions[:, : var.first_l]
        f_hat = condition.new_zeros(count, var.Cvae, var.patch_nums[-1], var.patch_nums[-1])
    dtype = matmul_dtype(hidden)
    modulation = var.shared_ada_lin(condition).to(dtype)
    tokens: list[Tensor] = []
    inputs: list[Tensor] = []
    logps: list[Tensor] = []
    begin = var.first_l
    with _key_value_cache(var):
        for scale, side in enumerate(var.patch_nums):
            hidden = hidden.to(dtype)
            for block in var.blocks:
                hidden = block(x=hidden, cond_BD=modulation, attn_bias=None)
            logits = unguided = var.get_logits(hidden.float(), condition)  # [N, side², V]
            ratio = scale / max(scales - 1, 1)
            if guidance:
                unguided, unconditional = logits.chunk(2)
                logits = (1 + guidance * ratio) * unguided - guidance * ratio * unconditional
            tokens.append(choose(logits))
            logps.append(token_logp(unguided, tokens[-1]))
            with full_precision(labels):
                h = embed(tokens[-1], logits, ratio) if embed else quantizer.embedding(tokens[-1])
                h = h.transpose(1, 2).reshape(count, var.Cvae, side, side)
                f_hat, next_input = quantizer.get_next_autoregressive_input(scale, scales, f_hat, h)
                if scale == scales - 1:
                    break
                inputs.append(next_input.reshape(count, var.Cvae, -1).transpose(1, 2))
                end = begin + inputs[-1].shape[1]
                hidden = (var.word_embed(inputs[-1]) + positions[:, begin:end]).repeat(branches, 1, 1)
                begin = end
    return Drawn(torch.cat(tokens, 1), torch.cat(inputs, 1), torch.cat(logps, 1), f_hat)


@torch.no_grad()
def through_pixels(vae: Any, f_hat: Tensor) -> Tensor:
    """Return the tokens [N, L] of the images that these features decode to, as a real image would be encoded."""
    with full_precision(f_hat):
        return torch.cat(vae.img_to_idxBl(vae.fhat_to_img(f_hat.float())), 1)


@contextmanager
def _key_value_cache(var: Any) -> Iterator[None]:
    """Let the attention layers cache keys and values, and restore their state afterwards, also after an exception."""
    before = [block.attn.caching for block in var.blocks]
    try:
        for block in var.blocks:
            block.attn.kv_caching(True)
        yield
    finally:
        for block, caching in zip(var.blocks, before, strict=True):
            block.attn.kv_caching(caching)


def full_precision(like: Tensor) -> AbstractContextManager[Any]:
    return torch.autocast(like.device.type, enabled=False)


def matmul_dtype(like: Tensor) -> torch.dtype:
    """Return the dtype of a matrix product under the current autocast setting."""
    probe = like.new_ones(1, 1)
    return (probe @ probe).dtype
