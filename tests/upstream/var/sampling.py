"""Our sampler and VAR's own: `sampling.py BASE IMAGES OUT`. Writes what they drew and found, as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import models.var
import torch
from trainer_of import build, real_batch

from ddo_integrations.var import draw as sampling
from ddo_integrations.var.draw import sample, together
from ddo_plugin.objective.tokens import token_logp

SEED = 3


def upstreams_tokens(var, labels) -> torch.Tensor:
    """What autoregressive_infer_cfg draws at guidance 0; it returns images, so its draws are read on their way."""
    drawn, original = [], models.var.sample_with_top_k_top_p_

    def keep(*arguments, **options):
        tokens = original(*arguments, **options)
        drawn.append(tokens[:, :, 0])
        return tokens

    models.var.sample_with_top_k_top_p_ = keep
    var.autoregressive_infer_cfg(len(labels), labels, g_seed=SEED, cfg=0)
    models.var.sample_with_top_k_top_p_ = original
    return torch.cat(drawn, 1)


def ours(var, labels):
    return sample(var, labels, together(torch.Generator().manual_seed(SEED)))


def forward_logp(var, labels, drawn) -> torch.Tensor:
    with torch.no_grad():
        return token_logp(var(labels, drawn.inputs), drawn.tokens)


def difference(var, labels) -> float:
    drawn = ours(var, labels)
    return float((drawn.logp - forward_logp(var, labels, drawn)).sum(1).abs().max())


def interrupted(var, labels) -> bool:
    """Whether the caches are off after an exception within the sampler."""
    head, var.head = var.head, None
    try:
        ours(var, labels)
    except TypeError:
        return not any(block.attn.caching or block.attn.cached_k is not None for block in var.blocks)
    finally:
        var.head = head
    return False


def main(base: str, images: str, out: str) -> None:
    trainer = build(base, out, ranks=False)
    var, (_, labels) = trainer.reference, real_batch(images, 9)
    drawn = ours(var, labels)
    found = {
        "tokens differ": int((drawn.tokens != upstreams_tokens(var, labels)).sum()),
        "kinds of tokens": len(drawn.tokens.unique()),
        "inputs differ": float((drawn.inputs - _inputs(trainer, drawn.tokens)).abs().max()),
        "logp differs": difference(var, labels),
        "mean logp": float(drawn.logp.sum(1).mean()),
        "caches are off after an exception": interrupted(var, labels),
        "draws the same after it": bool(torch.equal(drawn.tokens, ours(var, labels).tokens)),
    }
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found["logp differs in bf16"] = difference(var, labels)
        sampling.full_precision = lambda like: contextlib.nullcontext()
        found["logp differs in bf16 where all is bf16"] = difference(var, labels)
    Path(out).write_text(json.dumps(found))


def _inputs(trainer, tokens):
    from ddo_integrations.var.fakes import inputs_of

    return inputs_of(trainer.quantize_local, tokens)


if __name__ == "__main__":
    main(*sys.argv[1:])
