"""Gradients of a DDO loss over one batch, split: `gradients.py UPSTREAM BASE FAKES OUT CHUNKS NOISE`, or by torchrun.

Noise follows from the sample itself here, or from the real sample of a pair if NOISE is paired, so that a split changes
nothing but the arithmetic.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from ddo_plugin.checkouts import compat
from ddo_plugin.finetuning.session import Session, prepare_session
from ddo_plugin.objective import diffusion
from ddo_plugin.snapshots.reference import target_settings

BATCH = 8


def of_content(clean: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[N, *shape] normal numbers that depend on each sample alone."""
    seeds = [int(sample.double().abs().sum() * 1e6) % (1 << 31) for sample in clean]
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


class Fakes:
    """Hands out the fakes that belong to the current part of the batch."""

    def __init__(self, samples: torch.Tensor, labels: torch.Tensor):
        self.samples, self.labels, self.rows = samples, labels, slice(0)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.samples[self.rows], self.labels[self.rows]


# Both begin after the first step, where r must be 0.


def edm(session: Session) -> tuple[torch.nn.Module, Callable[..., torch.Tensor]]:
    from ddo_integrations.edm import events
    from ddo_integrations.edm.loss import DDOLoss
    from ddo_integrations.edm.networks import start

    events.watch(session, BATCH, BATCH, 2 * BATCH)
    return moved(start(session.reference.info.class_name, **settings(session))), DDOLoss({}, {})


def edm2(session: Session) -> tuple[torch.nn.Module, Callable[..., torch.Tensor]]:
    from ddo_integrations.edm2 import events
    from ddo_integrations.edm2.loss import DDOLoss
    from ddo_integrations.edm2.networks import settle, start

    net = moved(start(**settings(session)))
    settle(net, torch.device("cpu"))  # else every forward would move it a little
    events.watch(session, None, BATCH)
    loss_fn = DDOLoss({}, {})
    loss_fn.load_state_dict({"nimg": BATCH})
    return net, loss_fn


def settings(session: Session) -> dict[str, Any]:
    info = session.reference.info
    interface = {"img_resolution": info.resolution, "img_channels": info.channels, "label_dim": info.label_dim}
    return target_settings(session.reference) | interface


def moved(net: torch.nn.Module) -> torch.nn.Module:
    """Away from the reference, where r is 0."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return net.train().requires_grad_(True)


def opened(
    upstream: str, base: str, fakes: str, out: str, noise: str, objective: str = "ddo"
) -> tuple[Session, torch.Tensor, torch.Tensor]:
    """A session that hands out its first fakes, and other fakes and their labels as the real batch."""
    options = {"ddo": base, "ddo_fakes": fakes, "ddo_objective": objective, "ddo_alpha": 2.0, "ddo_beta": 0.5}
    options |= {"ddo_noise": noise, "ddo_compile": False, "ddo_trust": False, "ddo_sha256": None}
    session = prepare_session(upstream, Path(out), options)
    torch.manual_seed(0)
    drawn, numbers = session.fakes.draw(2 * BATCH)
    session.fakes = Fakes(drawn[:BATCH], numbers[:BATCH])
    return session, drawn[BATCH:].float() / 127.5 - 1, torch.eye(3)[numbers[BATCH:]]


def main(upstream: str, base: str, fakes: str, out: str, chunks: str, noise: str) -> None:
    compat.apply()
    from torch_utils import distributed as dist

    dist.init()
    session, real, labels = opened(upstream, base, fakes, out, noise)
    net, loss_fn = {"edm": edm, "edm2": edm2}[upstream](session)
    ddp = torch.nn.parallel.DistributedDataParallel(net)

    diffusion.torch.randn_like = lambda clean: of_content(clean, tuple(clean.shape[1:]))
    diffusion.NoiseLevels.sample = lambda self, clean: (of_content(clean, (1, 1, 1)) * self.P_std + self.P_mean).exp()
    share = BATCH // dist.get_world_size()
    first, size = dist.get_rank() * share, share // int(chunks)
    for at in range(first, first + share, size):
        session.fakes.rows = slice(at, at + size)
        with ddp.no_sync() if at + size < first + share else torch.enable_grad():
            loss = loss_fn(net=ddp, images=real[at : at + size], labels=labels[at : at + size])
            loss.sum().mul(1 / share).backward()
    if dist.get_rank() == 0:
        torch.save([parameter.grad for parameter in net.parameters() if parameter.grad is not None], out)
    torch.distributed.barrier()  # a rank that leaves early can take the other's connection with it
    torch.distributed.destroy_process_group()
    os._exit(0)  # the destructor of DDP's process group may wait forever for a thread that waits for Python's lock


if __name__ == "__main__":
    main(*sys.argv[1:])
