"""What the merge of two parents of EDM2 does to its outputs; prints JSON: `merging.py A A_RESCALED B`, in the checkout.

A and A_RESCALED are one function with weights of other norms. Distances of outputs are divided by the distance of the
outputs of A and B, all in fp32.
"""

import copy
import json
import pickle
import sys
from pathlib import Path

import torch

from ddo_integrations.edm2.networks import normalise, normaliser
from ddo_plugin import interpolate

W = 1.5


def load(path: str) -> torch.nn.Module:
    with Path(path).open("rb") as file:
        return pickle.load(file)["ema"].float()


def filled(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    made = copy.deepcopy(network)
    made.load_state_dict(state)
    return made


def merged(a: torch.nn.Module, b: torch.nn.Module, *prepare: object) -> torch.nn.Module:
    buffers = [name for name, _ in a.named_buffers()]
    return filled(a, interpolate(a.state_dict(), b.state_dict(), W, buffers, *prepare))


def outputs(network: torch.nn.Module) -> torch.Tensor:
    torch.manual_seed(1)
    images = torch.randn(32, 3, 8, 8)
    sigma = torch.logspace(-1, 1, 32)
    labels = torch.eye(network.label_dim)[torch.arange(32) % network.label_dim] if network.label_dim else None
    return torch.cat([network(images * level + images.flip(0), level.expand(32), labels) for level in sigma[::8]])


def normalised(network: torch.nn.Module) -> torch.nn.Module:
    made = copy.deepcopy(network)
    normalise(made)
    return made


if __name__ == "__main__":
    a, rescaled, b = (load(path) for path in sys.argv[1:])
    unit = float((outputs(a) - outputs(b)).square().mean().sqrt())

    def distance(one: torch.nn.Module, other: torch.nn.Module) -> float:
        return float((outputs(one) - outputs(other)).square().mean().sqrt()) / unit

    prepare = normaliser(a)
    raw, ours = merged(a, b), merged(a, b, prepare)
    norms = [float(part.weight.square().mean().sqrt()) for part in a.modules() if type(part).__name__ == "MPConv"]
    found = {
        "parents": unit,
        "norms of a": [min(norms), max(norms)],
        "a rescaled": distance(a, rescaled),
        "raw, normalised once afterwards": distance(raw, normalised(raw)),
        "ours, normalised once afterwards": distance(ours, normalised(ours)),
        "raw, a rescaled": distance(raw, merged(rescaled, b)),
        "ours, a rescaled": distance(ours, merged(rescaled, b, prepare)),
        "raw against ours": distance(raw, ours),
        "a against ours": distance(a, ours),
    }
    print(json.dumps(found))
