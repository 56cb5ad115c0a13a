"""A run refuses a first step at which target and reference are two networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddo_plugin.base.errors import UserError
from ddo_plugin.finetuning.session import Session
from ddo_plugin.hooks.types import Reference, Run
from ddo_plugin.objective.ddo import DDO, Outcome, Terms

BETA = 0.02


@pytest.fixture
def judge(tmp_path: Path):
    """A function: log-ratios of the real samples, step -> the outcome, or a refusal."""
    reference = Reference(None, "net", "0" * 64)
    session = Session(Run("nobody", tmp_path), DDO(alpha=1.0, beta=BETA), reference, None)

    def judge(r: torch.Tensor, step: int = 0) -> Outcome:
        return session.judge(Terms(torch.zeros(len(r)), torch.zeros(len(r)), r, torch.zeros(len(r))), step)

    return judge


def test_log_ratios_of_0_begin_a_round(judge) -> None:
    assert judge(torch.zeros(8)).real.sum() > 0


def test_the_noise_of_bf16_over_many_tokens_begins_a_round(judge) -> None:
    """A standard deviation of 1.1 at 2240 tokens: one sample of 768 is beyond the bound, all are not."""
    r = 1.1 * torch.randn(768, generator=torch.Generator().manual_seed(0))
    assert (BETA * r).abs().max() > 0.05
    judge(r)


@pytest.mark.parametrize("r", [torch.full((8,), 5.0), torch.tensor([20.0, -20.0] * 4), torch.full((8,), torch.nan)])
def test_another_network_is_refused_at_the_first_step_alone(judge, r: torch.Tensor) -> None:
    with pytest.raises(UserError, match="not the same network"):
        judge(r)
    judge(r, step=1)
