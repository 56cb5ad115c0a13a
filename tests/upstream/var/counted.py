"""Operations of one real DDO step, and what the integration says of it: `counted.py BASE IMAGES OUT`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from trainer_of import build, no_logging, real_batch

from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import RoundStep

BATCH = 8


def main(base: str, images: str, out: str) -> None:
    trainer = build(base, out, ranks=False)
    real, labels = real_batch(images, BATCH)
    torch.manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(it=1, g_it=0, stepping=True, inp_B3HW=real, label_B=labels, **no_logging())
    hook = plugins.manager().hook
    count = hook.ddo_count(upstream="var", network=Path(base))
    step = RoundStep("var", Path(base), None, Path(out), "ddo", 1.0, 0.1, 0, {"ddo-iters": 1, "bs": BATCH})
    effort = hook.ddo_effort(step=step, network=count, gpus=1)
    parts = [arithmetic.operations for arithmetic in effort.arithmetic]
    told = {
        "counted": counter.get_total_flops(),
        "predicted": sum(parts),
        "networks": parts[0],
        "parameters": sum(parameter.numel() for parameter in trainer.target.parameters()),
        "network": asdict(count),
    }
    Path(out).with_suffix(".json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
