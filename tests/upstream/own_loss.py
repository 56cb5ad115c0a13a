"""Neon's loss beside upstream's own of the same fakes: `own_loss.py UPSTREAM BASE FAKES OUT`, prints what is equal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
import torch.distributed
from gradients import BATCH, edm, edm2, opened

from ddo_plugin.checkouts import compat


def main(upstream: str, base: str, fakes: str, out: str) -> None:
    compat.apply()
    from torch_utils import distributed as dist

    dist.init()
    session, real, labels = opened(upstream, base, fakes, out, "paired", "neon")
    net, ours = {"edm": edm, "edm2": edm2}[upstream](session)
    ddp = torch.nn.parallel.DistributedDataParallel(net)
    session.fakes.rows = slice(0, BATCH)
    drawn, numbers = session.fakes.draw(BATCH)
    clean, conditions = drawn.float() / 127.5 - 1, torch.eye(3)[numbers]
    theirs, further = of_upstream(upstream)

    def differentiated(loss_fn: Callable[..., torch.Tensor], *batch: torch.Tensor) -> list[torch.Tensor]:
        net.zero_grad()
        torch.manual_seed(1)
        loss = loss_fn(ddp, *batch, **further)
        loss.sum().mul(1 / BATCH).backward()
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        return [loss.detach().flatten(1).sum(1) if loss.ndim > 1 else loss.detach(), *gradients]

    one, other = differentiated(ours, real, labels), differentiated(theirs, clean, conditions)
    found = {
        "losses": one[0].equal(other[0]),
        "gradients": len(one) == len(other) and all(map(torch.equal, one[1:], other[1:])),
        "number of gradients": len(one) - 1,
    }
    print(json.dumps(found))


def of_upstream(upstream: str) -> tuple[Callable[..., torch.Tensor], dict[str, Callable[..., object]]]:
    """Upstream's loss with the noise of the tests' session, and what its loop hands to it besides a batch."""
    noise = {"P_mean": -1.2, "P_std": 1.2, "sigma_data": 0.5}
    if upstream == "edm":
        from training.augment import AugmentPipe
        from training.loss import EDMLoss

        operations = {"xflip": 1e8, "yflip": 1, "scale": 1, "rotate_frac": 1, "aniso": 1, "translate_frac": 1}
        return EDMLoss(**noise), {"augment_pipe": AugmentPipe(p=0.5, **operations)}
    from training.training_loop import EDM2Loss

    return EDM2Loss(**noise), {}


if __name__ == "__main__":
    main(*sys.argv[1:])
