"""The step of one batch, split: `gradients.py BASE IMAGES OUT CHUNKS`, also under torchrun. Writes all gradients.

Fakes and dropped labels follow from the labels themselves here, so that a split changes nothing but the arithmetic.
"""

from __future__ import annotations

import sys

import dist
import torch
from trainer_of import build, no_logging, real_batch

from ddo_integrations.var import trainer as trainer_module
from ddo_integrations.var.draw import sample, together
from ddo_integrations.var.fakes import Batch

BATCH, DROPPED, LR = 12, 0, 1.0


class ByLabel:
    """One pyramid a class."""

    def __init__(self, reference):
        self.reference = reference

    def draw(self, labels, generator):
        drawn = [sample(self.reference, one[None], together(torch.Generator().manual_seed(int(one)))) for one in labels]
        fakes = Batch(labels, *(torch.cat([getattr(d, name) for d in drawn]) for name in ("tokens", "inputs")))
        return fakes, torch.cat([d.logp for d in drawn])


def drop_one_class(labels, null_label, generator):
    kept = (labels != DROPPED).nonzero().squeeze(1)
    return torch.where(labels == DROPPED, null_label, labels), kept


def main(base: str, images: str, out: str, chunks: str) -> None:
    trainer = build(base, out, ranks=True, accumulation=int(chunks), lr=LR)
    trainer.fakes = ByLabel(trainer.reference)
    trainer_module.drop_labels = drop_one_class
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.target.parameters():  # away from the reference, where r is 0
            parameter.add_(0.05 * torch.randn(parameter.shape))
    before = [parameter.detach().clone() for parameter in trainer.target.parameters()]

    real, labels = real_batch(images, BATCH)
    share = BATCH // dist.get_world_size()
    size = share // int(chunks)
    for number in range(int(chunks)):
        rows = slice(dist.get_rank() * share + number * size, dist.get_rank() * share + (number + 1) * size)
        batch = int(chunks) + number  # of the second step: r must be 0 in the first
        last = number == int(chunks) - 1
        trainer.train_step(it=1, g_it=batch, stepping=last, inp_B3HW=real[rows], label_B=labels[rows], **no_logging())
    if dist.is_master():
        after = trainer.target.parameters()
        torch.save(torch.cat([((b - a) / LR).flatten() for b, a in zip(before, after, strict=True)]).detach(), out)
    dist.barrier()
    dist.finalize()


if __name__ == "__main__":
    main(*sys.argv[1:])
