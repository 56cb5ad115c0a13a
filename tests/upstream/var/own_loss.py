"""Neon's step beside upstream's own on the same tokens: `own_loss.py BASE IMAGES OUT`. Writes what is compared."""

from __future__ import annotations

import sys

import torch
from trainer_of import VARTrainer, build, no_logging, real_batch

from ddo_integrations.var.fakes import Batch, inputs_of

BATCH, LR = 12, 1.0


class Fixed:
    """The same tokens at every draw."""

    def __init__(self, quantizer, tokens: torch.Tensor):
        self.quantizer, self.tokens = quantizer, tokens

    def draw(self, labels, generator):
        return Batch(labels, self.tokens, inputs_of(self.quantizer, self.tokens)), None


def main(base: str, images: str, out: str) -> None:
    trainer = build(base, out, ranks=False, lr=LR, ddo_objective="neon")
    target = trainer.target.train()
    start = {name: value.clone() for name, value in target.state_dict().items()}
    real, labels = real_batch(images, BATCH)
    maps = trainer.vae_local.img_to_idxBl(real.flip(0))
    trainer.fakes = Fixed(trainer.quantize_local, torch.cat(maps, 1))
    trainer.session.report_snapshot = lambda path, step: None
    batch = {"it": 1, "g_it": 0, "stepping": True, "label_B": labels, **no_logging(), "prog_wp_it": 1.0}

    def moved() -> torch.Tensor:
        by = [(start[name] - value).detach().flatten() for name, value in target.named_parameters()]
        target.load_state_dict(start)
        return torch.cat(by) / LR

    trainer.train_step(inp_B3HW=real, **batch)
    found = {"ours": moved()}
    seed = trainer.round.generator(0, 0, labels.device).initial_seed() ^ 0xFFFFFFFF
    trainer.vae_local.img_to_idxBl = lambda images: maps
    for name, number in (("upstream's", seed), ("with other dropout", seed + 1)):
        torch.manual_seed(number)
        VARTrainer.train_step(trainer, inp_B3HW=real, **batch)
        found[name] = moved()
    torch.save(found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
