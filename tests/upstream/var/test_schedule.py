"""The learning rate of a round: upstream's schedule over an epoch, or squeezed into the round."""

from __future__ import annotations

import itertools
import json

import pytest

# The learning rate of each step in a loop of SHORT batches, when upstream's schedule shall last LONG.
RATES = """
import json, sys, torch
from ddo_integrations.var import schedule
from utils import lr_control
SHORT, LONG, WARM_UP = 80, 1251, 0.02
def rates(batches, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    for step in range(steps):
        wd = {"wp0": 0.005, "wpe": 0.1}
        lr_control.lr_wd_annealing("lin0", optimizer, 4e-6, 0.05, 0.08, step, WARM_UP * batches, batches, **wd)
        yield [optimizer.param_groups[0][name] for name in ("lr", "weight_decay")]
found = {"of an epoch": list(rates(LONG, SHORT))}
schedule.lay_over(LONG)
found["of the round"] = list(rates(SHORT, SHORT))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def rates(world, completed) -> dict[str, list[list[float]]]:
    variables = {"PYTHONPATH": f"{world.repo}:{world.variables['PYTHONPATH']}"}
    made = world.python("-c", RATES, **variables)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.splitlines()[-1])


def test_a_round_has_the_first_rates_of_an_epoch(rates) -> None:
    assert rates["of the round"] == [pytest.approx(pair, rel=1e-12) for pair in rates["of an epoch"]]


def test_it_warms_up_for_25_steps_and_then_is_flat(rates) -> None:
    """An epoch of ImageNet has 1251 steps of 1024 images."""
    rate = [pair[0] for pair in rates["of the round"]]
    assert rate[0] == pytest.approx(0.005 * 4e-6)
    assert all(one < after for one, after in itertools.pairwise(rate[:26]))
    assert rate[25:] == [pytest.approx(4e-6)] * 55
