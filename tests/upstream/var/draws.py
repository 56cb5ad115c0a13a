"""What every rank draws in the first batches: `draws.py BASE IMAGES OUT`, under torchrun. Writes OUT.RANK."""

from __future__ import annotations

import sys

import dist
import torch
from trainer_of import build, real_batch


def main(base: str, images: str, out: str) -> None:
    trainer = build(base, out, ranks=True)
    _, labels = real_batch(images, 6)
    drawn = []
    for batch in (0, 1, 0):
        generator = trainer.round.generator(batch, dist.get_rank(), labels.device)
        fakes, _ = trainer.fakes.draw(labels, generator)
        drawn.append(fakes.tokens)
    torch.save(drawn, f"{out}.{dist.get_rank()}")
    dist.barrier()
    dist.finalize()


if __name__ == "__main__":
    main(*sys.argv[1:])
