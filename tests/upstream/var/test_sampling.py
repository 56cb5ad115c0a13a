"""The sampler of fakes draws what VAR's own draws without guidance, and knows how likely it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(torch.__version__ < "2.3", reason="torch does not mix VAR's precisions on a CPU")


@pytest.fixture(scope="module")
def found(world, completed, tmp_path_factory):
    out = tmp_path_factory.mktemp("sampling") / "found.json"
    variables = {"PYTHONPATH": f"{world.repo}:{HERE}:{world.variables['PYTHONPATH']}"}
    completed(world.python(HERE / "sampling.py", world.base, world.data / "train", out, **variables))
    return json.loads(out.read_text())


def test_tokens_are_those_of_upstreams_sampler_at_guidance_0(found) -> None:
    assert found["kinds of tokens"] > 50  # no accident
    assert found["tokens differ"] == 0


def test_inputs_are_those_of_a_forward_over_the_tokens(found) -> None:
    assert found["inputs differ"] < 1e-5


def test_log_probabilities_are_those_of_a_forward(found) -> None:
    assert found["mean logp"] < -50
    assert found["logp differs"] < 5e-4


def test_half_precision_follows_the_forwards_types(found) -> None:
    assert found["logp differs in bf16"] < 0.01
    assert found["logp differs in bf16 where all is bf16"] > 0.05


def test_an_exception_leaves_no_cache_behind(found) -> None:
    assert found["caches are off after an exception"]
    assert found["draws the same after it"]
