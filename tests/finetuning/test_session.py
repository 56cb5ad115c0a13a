"""A run refuses a first step at which target and reference are two networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ddo_plugin import hookimpl
from ddo_plugin.base.errors import UserError
from ddo_plugin.finetuning.session import Session, current_session, prepare_session
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Reference, Run
from ddo_plugin.objective.ddo import DDO, MLE, Outcome, Terms

BETA = 0.02


@pytest.fixture
def session(tmp_path: Path) -> Session:
    reference = Reference(None, "net", "0" * 64)
    settings = {"ddo_alpha": 2.0, "--lr": 0.1, "sides": (1, 2)}
    return Session(Run("nobody", tmp_path), DDO(alpha=1.0, beta=BETA), reference, None, settings)


@pytest.fixture
def judge(session: Session):
    """A function: log-ratios of the real samples, step -> the outcome, or a refusal."""

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


STATE = Path("state.pt")


def record(**changed: Any) -> dict[str, Any]:
    return {"reference": "0" * 64, "settings": {"ddo_alpha": 2.0, "--lr": 0.1, "sides": [1, 2], **changed}}


def test_a_state_of_the_same_round_is_resumed_from(session: Session) -> None:
    session.check_state(STATE, record(), "use another folder")
    session.check_state(STATE, {"reference": "0" * 64, "settings": {}}, "use another folder")  # names came later


def test_a_state_from_before_an_option_existed_has_the_behaviour_of_that_time(session: Session) -> None:
    session.settings["ddo_noise"] = "independent"
    session.check_state(STATE, record(), "use another folder")
    session.settings["ddo_noise"] = "paired"
    with pytest.raises(UserError, match="a round with --ddo-noise=independent, not paired; use the same value"):
        session.check_state(STATE, record(), "use another folder")
    session.check_state(STATE, record(ddo_noise="paired"), "use another folder")
    session.objective = MLE()  # without fakes there is nothing to pair
    session.check_state(STATE, record(), "use another folder")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (None, "state.pt is not a training state of a DDO run; use another folder"),
        ({"reference": "1" * 64}, r"another reference \(SHA-256 111111111111…\) than --ddo=net; use another folder"),
        (record(ddo_alpha=3.0), "--ddo-alpha=3.0, not 2.0; use the same value, or use another folder"),
        (record(**{"--lr": 0.2}), "a round with --lr=0.2, not 0.1"),
        (record(sides=[1, 3]), r"sides=\[1, 3\], not \(1, 2\)"),
    ],
)
def test_a_state_of_another_round_is_refused(session: Session, stored: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        session.check_state(STATE, stored, "use another folder")


def test_there_is_no_session_before_one_is_prepared() -> None:
    with pytest.raises(RuntimeError, match="no DDO session of nobody"):
        current_session("nobody")


def test_an_objective_that_does_not_say_on_what_it_trains_is_refused(tmp_path: Path) -> None:
    class Older:
        """An objective as plugins wrote them before there was Neon."""

        needs_fakes = True

    class Plugin:
        @hookimpl
        def ddo_objectives(self) -> dict[str, Any]:
            return {"older": lambda options: Older()}

    manager = plugins.manager()
    plugin = Plugin()
    manager.register(plugin)
    try:
        with pytest.raises(UserError, match="--ddo-objective=older: its attribute trains_on is None, but must be one"):
            prepare_session("nobody", tmp_path, {"ddo": "network", "ddo_objective": "older"})
    finally:
        manager.unregister(plugin)
