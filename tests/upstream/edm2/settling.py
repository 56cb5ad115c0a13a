"""The log-ratio of a target in train() and its reference in eval(), weights settled or not; prints JSON.

The weights differ from unit norm. A forward without gradients comes first, as in upstream's summary of the network.
"""

import copy
import json

import torch
from training.networks_edm2 import Precond

from ddo_integrations.edm2.networks import settle
from ddo_plugin.objective import diffusion
from ddo_plugin.objective.diffusion import NoiseLevels


def worst(settled: bool) -> float:
    torch.manual_seed(0)
    net = Precond(
        8, 3, 0, model_channels=16, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4], channels_per_head=8
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(0.5) if "gain" in name else parameter.mul_(0.3)
    net.eval().requires_grad_(False).half().float()
    if settled:
        settle(net, torch.device("cpu"))
    target = copy.deepcopy(net).train()
    images = torch.randn(16, 3, 8, 8)
    target(images, torch.ones(16))
    target.requires_grad_(True)
    steps = [diffusion.diffusion_terms(target, net, images, 8, NoiseLevels(-0.8, 1.6), False) for _ in range(2)]
    return max(float(terms.r_fake.detach().abs().max()) for terms in steps)


if __name__ == "__main__":
    print(json.dumps({"settled": worst(True), "as stored": worst(False)}))
