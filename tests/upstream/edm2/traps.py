"""What EDM2's network does to a loss that is written without care; prints JSON. Run in the checkout.

Each entry is the message of the error that a careless training step ends with, "" if with none.
"""

import json
import os
from collections.abc import Callable

import torch
from torch.nn.parallel import DistributedDataParallel
from training.networks_edm2 import Precond

from ddo_integrations.edm2.loss import _denoiser
from ddo_plugin.objective.diffusion import Denoiser

NOISY, SIGMA, NO_LABELS = torch.randn(4, 3, 8, 8), torch.ones(4), torch.zeros(8, 0)


def message(step: Callable[[], None]) -> str:
    try:
        step()
        step()  # DistributedDataParallel notices what the first left out
    except RuntimeError as error:
        return str(error)
    return ""


def two_forwards(net: torch.nn.Module) -> None:
    """Real and fake one after the other, in training."""
    (net(NOISY, SIGMA).sum() + net(NOISY, SIGMA).sum()).backward()


def one_forward(denoise: Denoiser) -> None:
    denoise(torch.cat([NOISY, NOISY]), torch.cat([SIGMA, SIGMA])).sum().backward()


if __name__ == "__main__":
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}
    torch.distributed.init_process_group("gloo")
    net = Precond(8, 3, 0, model_channels=8, channel_mult=[1, 1], num_blocks=1, attn_resolutions=[]).train()
    ddp = DistributedDataParallel(net)
    errors = {
        "ours": message(lambda: one_forward(_denoiser(ddp, NO_LABELS))),
        "two forwards": message(lambda: two_forwards(net)),
        "without logvar": message(lambda: one_forward(ddp)),
    }
    print(json.dumps(errors))
    torch.distributed.destroy_process_group()
