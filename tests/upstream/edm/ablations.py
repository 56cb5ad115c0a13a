"""`ablations.py`: our ablation sampler and generate.py's, all flags with all; prints how many of how many agree.

Run with the checkout on the path. The network is a formula: what is compared is the samplers' arithmetic.
"""

import itertools

import click
import generate
import torch

from ddo_integrations.edm import generator
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.streams import SampleGenerators

SEEDS, SHAPE, STEPS = [1, 2, 3], (3, 8, 8), 6
SHARED = {"S_min": 0.05, "S_max": 20.0, "S_noise": 1.01}
CHOICES = {
    "solver": [None, "heun", "euler"],
    "disc": [None, "vp", "ve", "iddpm", "edm"],
    "schedule": [None, "vp", "ve", "linear"],
    "scaling": [None, "vp", "none"],
}


class Network:
    """Supports noise levels within bounds that cut off some of each range, and rounds them."""

    sigma_min, sigma_max = 0.01, 90.0

    def __call__(self, x, sigma, labels=None):
        x, sigma = x.to(torch.float32), sigma.to(torch.float32).reshape(-1, 1, 1, 1)
        return x / (1 + sigma**2) + 0.3 * torch.tanh(x / (1 + sigma))

    def round_sigma(self, sigma):
        return torch.as_tensor(sigma).to(torch.float32).to(torch.float64)


def theirs(flags, churn):
    names = {"disc": "discretization"}
    flags = {names.get(name, name): value for name, value in flags.items() if value is not None}
    rows = generate.StackedRandomGenerator("cpu", SEEDS)
    sampler = generate.ablation_sampler if flags else generate.edm_sampler
    settings = {"num_steps": STEPS, "S_churn": churn, **SHARED, **flags}
    return sampler(Network(), rows.randn([len(SEEDS), *SHAPE]), None, rows.randn_like, **settings)


def ours(command, flags, churn):
    told = {"steps": STEPS, "S_churn": churn, **SHARED, **flags}
    argv = [f"--{name}={value}" for name, value in told.items() if value is not None]
    network, streams = Network(), SampleGenerators(0, SEEDS)
    solve, _ = generator.solver(command.make_context("", argv).params, network, SHAPE)
    return solve(lambda x, sigma: network(x, sigma[:1]), streams.randn(*SHAPE), streams)


if __name__ == "__main__":
    options = plugins.collect(plugins.manager().hook.ddo_generator_options(upstream="edm"))
    command = click.Command("options", params=list(options))
    agreed, different = 0, []
    for churn, *values in itertools.product([0.0, 3.0], *CHOICES.values()):
        flags = dict(zip(CHOICES, values, strict=True))
        same = torch.equal(ours(command, flags, churn), theirs(flags, churn))
        agreed += same
        if not same:
            different.append((churn, flags))
    print(agreed, "of", agreed + len(different), *different)
