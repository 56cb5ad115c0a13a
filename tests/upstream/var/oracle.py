"""One step of the real trainer away from the reference, for the oracle: `oracle.py BASE IMAGES OUT ALPHA`.

Writes what the step saw (tokens, labels, hidden states and heads of target and reference), the loss, and its gradient
with respect to the hidden states.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from trainer_of import build, no_logging, real_batch

BATCH = 8


def main(base: str, images: str, out: str, alpha: str) -> None:
    trainer = build(base, str(Path(out).parent), ranks=False, ddo_alpha=float(alpha))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.target.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    seen: dict[str, torch.Tensor] = {}

    def keep(name, network, wrapped):
        def hook(_, inputs, hidden):
            seen[name] = hidden
            seen["labels"] = inputs[0]

        wrapped.register_forward_hook(hook)
        seen[f"{name} weight"], seen[f"{name} bias"] = network.head.weight, network.head.bias

    keep("target", trainer.target, trainer.var)
    keep("reference", trainer.reference, trainer.reference)
    tokenize, draw = trainer._tokenize, trainer.fakes.draw

    def keep_real(*arguments):
        real = tokenize(*arguments)
        seen["real"] = real.tokens
        return real

    def keep_fake(*arguments):
        fake, logp = draw(*arguments)
        seen["fake"] = fake.tokens
        return fake, logp

    def keep_loss(loss, stepping):
        (seen["gradient"],) = torch.autograd.grad(loss, seen["target"])
        seen["loss"] = loss
        return None, None

    trainer._tokenize, trainer.fakes.draw = keep_real, keep_fake
    trainer.var_opt.backward_clip_step = keep_loss
    real, labels = real_batch(images, BATCH)
    trainer.train_step(it=1, g_it=1, stepping=False, inp_B3HW=real, label_B=labels, **no_logging())
    torch.save({name: value.detach() for name, value in seen.items()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
