"""Counts the operations and the memory of a VAR, for `ddo plan`."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from models.var import VAR
from models.vqvae import VQVAE

from ddo_integrations.var import networks
from ddo_integrations.var.draw import sample
from ddo_integrations.var.fakes import Batch
from ddo_integrations.var.networks import Weights
from ddo_integrations.var.scoring import Scorer
from ddo_plugin import NetworkCount, count_forward, count_operations

WIDTH_OF_HEAD = 64  # channels of an attention head
CHANNELS = 160  # of the published image tokenizer


@dataclass(frozen=True)
class _Shallow:
    """Counts of the network with only some of its blocks, all of which are alike."""

    parameters: float
    forward: float
    kept: float
    kept_once: float
    drawing: float

    def deeper(self, other: _Shallow, blocks: int) -> _Shallow:
        """Return this plus the difference to `other`, which has one more block, times a number of blocks."""
        own, more = vars(self), vars(other)
        return _Shallow(**{name: own[name] + blocks * (more[name] - own[name]) for name in own})


def count(path: Path) -> NetworkCount:
    """Count a network by its weights' shapes: with one block, with two, and the difference for each further block."""
    weights = networks.read_weights(path, "start")
    with redirect_stdout(io.StringIO()):  # upstream's constructors print
        vae = VQVAE(vocab_size=weights.vocabulary, ch=CHANNELS, v_patch_nums=weights.sides, test_mode=True)
        one, two = (_count_shallow(vae, weights, depth) for depth in (1, 2))
    whole = one.deeper(two, weights.depth - 1)
    side = 16 * weights.sides[-1]
    features = torch.zeros(1, vae.Cvae, weights.sides[-1], weights.sides[-1])
    decoding = count_operations(lambda: vae.fhat_to_img(features))
    return NetworkCount(
        parameters=int(whole.parameters),
        forward=whole.forward,
        kept=whole.kept,
        kept_once=whole.kept_once,
        sample_bytes=weights.tokens * 6,  # a token in 16 bits, and its log-probability
        others={
            "drawing": whole.drawing,
            "decoding": decoding,
            "encoding": count_operations(lambda: vae.img_to_idxBl(torch.zeros(1, 3, side, side))),
        },
    )


def _count_shallow(vae: Any, weights: Weights, depth: int) -> _Shallow:
    width = weights.state["class_emb.weight"].shape[1]
    var = VAR(
        vae_local=vae,
        num_classes=weights.classes,
        depth=depth,
        embed_dim=width,
        num_heads=width // WIDTH_OF_HEAD,
        norm_eps=1e-6,
        shared_aln=weights.shared_modulation,
        attn_l2_norm=weights.normalised_attention,
        patch_nums=weights.sides,
    )
    networks.make_exact(var)
    score = Scorer(var, var)

    def forward(batch: int) -> object:
        tokens = torch.zeros(batch, weights.tokens, dtype=torch.long)
        inputs = torch.zeros(batch, weights.tokens - var.first_l, var.Cvae)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # as wide as fp16, in which VAR trains
            return score(Batch(tokens[:, 0], tokens, inputs))

    def first_token(logits: torch.Tensor) -> torch.Tensor:
        return logits.new_zeros(logits.shape[:2], dtype=torch.long)  # the weights are random, or not even numbers

    def draw() -> object:
        return sample(var.eval(), torch.zeros(1, dtype=torch.long), first_token)

    counted = count_forward(var.train(), forward)
    parameters = sum(parameter.numel() for parameter in var.parameters())
    return _Shallow(parameters, counted.operations, counted.kept, counted.kept_once, count_operations(draw))
