"""Operations of one real DDO step, and what the integration says of it: `counted.py UPSTREAM BASE FAKES OUT`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import gradients
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddo_plugin.checkouts import compat
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import RoundStep


def main(upstream: str, base: str, fakes: str, out: str) -> None:
    compat.apply()
    from torch_utils import distributed as dist

    dist.init()
    session, real, labels = gradients.opened(upstream, base, fakes, out, "paired")
    session.fakes.rows = slice(None)
    net, loss_fn = {"edm": gradients.edm, "edm2": gradients.edm2}[upstream](session)
    ddp = torch.nn.parallel.DistributedDataParallel(net)
    with FlopCounterMode(display=False) as counter:
        loss_fn(net=ddp, images=real, labels=labels).sum().backward()
    hook = plugins.manager().hook
    count = hook.ddo_count(upstream=upstream, network=Path(base))
    batch = gradients.BATCH
    settings = {"duration": batch / 1e6 if upstream == "edm" else batch, "batch": batch}
    step = RoundStep(upstream, Path(base), Path(fakes), Path(out), "ddo", 1.0, 0.1, 0, settings)
    effort = hook.ddo_effort(step=step, network=count, gpus=1)
    told = {
        "counted": counter.get_total_flops(),
        "predicted": sum(arithmetic.operations for arithmetic in effort.arithmetic),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "network": asdict(count),
    }
    Path(out).with_suffix(".json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
