"""The token family, modelled on VAR: a residual pyramid of codes, and a transformer that predicts it by scales."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle, scaled_dot_product_attention

from ddo_integrations.demo.data import CLASSES, Digits, to_uint8, to_unit
from ddo_plugin import Fakes, SampleGenerators, SampleKind, Terms, drop_labels, token_logp_from_head, token_terms

PATCH = 2  # a cell of the finest map is a 2×2 patch of the 8×8 image
CELL = PATCH * PATCH  # values in a cell
SIDES = (1, 2, 4)  # side lengths of the token maps, coarse to fine
LENGTH = sum(side * side for side in SIDES)
VOCABULARY = 64
NO_LABEL = CLASSES


class Tokenizer(nn.Module):
    """Images [N, 1, 8, 8] <-> tokens [N, L]: at each scale, the code nearest to the residual of the coarser scales."""

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(len(SIDES), VOCABULARY, CELL))

    def fit(self, images: Tensor, seed: int) -> Tokenizer:
        """Learn the codes of each scale by k-means on the residuals of the scales before it."""
        from sklearn.cluster import KMeans

        rest = pixel_unshuffle(images, PATCH)
        for scale in range(len(SIDES)):
            cells = _shrink(rest, SIDES[scale]).reshape(-1, CELL)
            means = KMeans(VOCABULARY, n_init=1, random_state=seed).fit(cells.numpy()).cluster_centers_
            self.codes[scale] = torch.from_numpy(means)
            rest = rest - self.spread(scale, self._nearest(scale, rest))
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Return the tokens [N, L] of images in [-1, 1]."""
        rest, maps = pixel_unshuffle(images, PATCH), []
        for scale in range(len(SIDES)):
            maps.append(self._nearest(scale, rest))
            rest = rest - self.spread(scale, maps[-1])
        return torch.cat(maps, 1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Return the images in [-1, 1] of tokens."""
        total = torch.stack([self.spread(scale, map_) for scale, map_ in enumerate(split_scales(tokens))]).sum(0)
        return pixel_shuffle(total, PATCH).clamp(-1, 1)

    def contexts(self, tokens: Tensor) -> Tensor:
        """Return the inputs [N, L − 1, 4] for all scales but the first: the sum of the coarser scales, downsampled."""
        total, parts = torch.zeros(len(tokens), CELL, SIDES[-1], SIDES[-1]), []
        for scale, map_ in enumerate(split_scales(tokens)[:-1]):
            total = total + self.spread(scale, map_)
            parts.append(_shrink(total, SIDES[scale + 1]))
        return torch.cat(parts, 1)

    def spread(self, scale: int, map_: Tensor) -> Tensor:
        """Return the codes of one token map, upsampled to the finest scale: [N, 4, 4, 4]."""
        side = SIDES[scale]
        cells = self.codes[scale][map_].transpose(1, 2).reshape(len(map_), CELL, side, side)
        return cells if side == SIDES[-1] else interpolate(cells, size=(SIDES[-1],) * 2, mode="bicubic")

    def _nearest(self, scale: int, rest: Tensor) -> Tensor:
        return torch.cdist(_shrink(rest, SIDES[scale]), self.codes[scale]).argmin(2)


def split_scales(tokens: Tensor) -> tuple[Tensor, ...]:
    """Return the token map of each scale."""
    return tokens.split([side * side for side in SIDES], 1)


def _shrink(maps: Tensor, side: int) -> Tensor:
    """[N, C, H, W] -> [N, side², C]"""
    return interpolate(maps, size=(side, side), mode="area").flatten(2).transpose(1, 2)


class TokenTransformer(nn.Module):
    """Models p(tokens | label): predicts all tokens of a scale at once from the coarser scales."""

    mask: Tensor

    def __init__(self, width: int, depth: int, heads: int, dropout: float):
        super().__init__()
        self.label = nn.Embedding(CLASSES + 1, width)  # the last index means "no label"
        self.enter = nn.Linear(CELL, width)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)
        scale_of = torch.cat([torch.full((side * side,), scale) for scale, side in enumerate(SIDES)])
        self.register_buffer("mask", scale_of[:, None] >= scale_of[None, :], persistent=False)

    def forward(self, contexts: Tensor, labels: Tensor) -> Tensor:
        """Return the last hidden states [N, l, width] of the first l tokens, from the contexts [N, l − 1, 4]."""
        label = self.label(labels)[:, None]
        h = torch.cat([torch.zeros_like(label), self.enter(contexts)], 1) + label
        length = h.shape[1]
        h = self.dropout(h + self.position[:length])
        for block in self.blocks:
            h = block(h, self.mask[:length, :length])
        return self.norm(h)


class _Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm_attention(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        h = h + self.dropout(self.out(attended))
        return h + self.dropout(self.mlp(self.norm_mlp(h)))


class TokensFamily:
    """Trains on token pyramids; computes exact likelihoods by Eq. 1; draws ancestral samples."""

    kind: SampleKind = "tokens"
    sampler: Mapping[str, Any] = MappingProxyType({"name": "ancestral"})
    clip_grad_norm: float | None = 2.0
    label_drop = 0.1  # the paper uses 50 % for guidance, which the demo does not use

    def __init__(self, digits: Digits):
        self.digits = digits
        self.tokenizer = Tokenizer()
        self.tokenizer.load_state_dict(load_file(digits.path / "tokenizer.safetensors"))

    def network(self, dropout: float = 0.0) -> nn.Module:
        return TokenTransformer(width=16, depth=1, heads=4, dropout=dropout)

    def real_samples(self) -> Tensor:
        return self.tokenizer.encode(to_unit(torch.from_numpy(self.digits.images)))

    def optimizer(self, network: nn.Module, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)

    def terms(
        self,
        network: nn.Module,
        reference: nn.Module | None,
        real: Tensor,
        labels: Tensor,
        fakes: Fakes | None,
        paired: bool = False,
    ) -> Terms:
        """Return the terms of a batch. Real samples that lose their label have no fakes (α = 0 without a label).

        `paired` concerns diffusion only: the likelihood of tokens is exact, without noise.
        """
        n_real, samples = len(real), real
        labels, kept = drop_labels(labels, NO_LABEL, self.label_drop)
        if fakes is not None:
            fake, fake_labels = fakes.draw(len(kept))
            assert fake_labels is not None
            samples, labels = torch.cat([real, fake]), torch.cat([labels, fake_labels])
        contexts = self.tokenizer.contexts(samples)
        logp = _token_logp(network, contexts, labels, samples)
        if reference is None:
            return token_terms(logp, None, n_real)
        with torch.no_grad():
            logp_ref = _token_logp(reference, contexts, labels, samples)
        return token_terms(logp, logp_ref, n_real, kept)

    def log_likelihood(self, network: nn.Module, samples: Tensor, labels: Tensor) -> Tensor:
        """Return the exact log p(tokens | label), [N]."""
        return _token_logp(network, self.tokenizer.contexts(samples), labels, samples).sum(1)

    @torch.no_grad()
    def sample(self, network: nn.Module, labels: Tensor, generators: SampleGenerators) -> Tensor:
        """Return tokens [N, L], drawn scale by scale."""
        uniforms = split_scales(generators.rand(LENGTH))
        drawn, contexts = torch.zeros(len(labels), 0, dtype=torch.long), torch.zeros(len(labels), 0, CELL)
        total = torch.zeros(len(labels), CELL, SIDES[-1], SIDES[-1])
        for scale, uniform in enumerate(uniforms):
            logits = network.get_submodule("head")(network(contexts, labels)[:, -uniform.shape[1] :])
            map_ = _draw(logits, uniform)
            drawn = torch.cat([drawn, map_], 1)
            if scale + 1 < len(SIDES):
                total = total + self.tokenizer.spread(scale, map_)
                contexts = torch.cat([contexts, _shrink(total, SIDES[scale + 1])], 1)
        return drawn

    def to_images(self, samples: Tensor) -> Tensor:
        return to_uint8(self.tokenizer.decode(samples))


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw tokens [N, l] by inverting the cumulative distribution at uniform numbers [N, l]."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulative, uniform.double()[..., None]).squeeze(-1).clamp(max=VOCABULARY - 1)


def _token_logp(network: nn.Module, contexts: Tensor, labels: Tensor, samples: Tensor) -> Tensor:
    return token_logp_from_head(network(contexts, labels), samples, network.get_submodule("head"))
