"""The lines that a patch inserts: an option group, and a run that cannot forget DDO."""

from __future__ import annotations

from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result

from ddo_plugin import inject


def one_step() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight], lr=0.1).step()


def script(configure: bool, seen: dict[str, Any] | None = None) -> click.Command:
    """A training script in upstream's manner, with all of the inserted lines or without the last."""

    @click.command()
    @click.option("--lr", type=float, default=0.1)
    @inject.options("digits")
    def train(**options: Any) -> None:
        if seen is not None:
            seen.update(options)
        if configure:
            inject.configure("nobody", {}, options)
        one_step()
        click.echo("trained")

    return train


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_help_shows_the_group_after_the_scripts_own_options_in_order() -> None:
    output = run(script(True), "--help").output
    positions = [output.index(flag) for flag in ("--lr", "--ddo ", "--ddo-fakes", "--ddo-alpha", "--ddo-beta")]
    assert positions == sorted(positions)


def test_defaults_are_the_integrations() -> None:
    seen: dict[str, Any] = {}
    assert run(script(True, seen)).exit_code == 0
    assert (seen["ddo"], seen["ddo_alpha"], seen["ddo_beta"], seen["ddo_objective"]) == (None, 1.0, 0.3, "ddo")


def test_a_run_that_never_reaches_configure_stops_before_its_first_step() -> None:
    result = run(script(configure=False), "--ddo=network.pkl")
    assert result.exit_code == 2
    assert "trained" not in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert "digits's script never handed it to" in result.output


def test_configure_with_options_that_lost_ddo_does_not_pass_for_a_ddo_run() -> None:
    @click.command()
    @inject.options("digits")
    def train(**options: Any) -> None:
        inject.configure("digits", {}, {"lr": 0.1})
        one_step()

    assert run(train, "--ddo=network.pkl").exit_code == 2


def test_the_guard_is_gone_after_configure_and_after_a_failed_run() -> None:
    assert run(script(configure=True), "--ddo=network.pkl").output == "trained\n"
    run(script(configure=False), "--ddo=network.pkl")
    one_step()


def test_without_ddo_the_script_is_untouched() -> None:
    assert run(script(configure=False)).output == "trained\n"


@pytest.mark.parametrize("flag", ["--ddo-alpha=3", "--ddo-fakes=somewhere", "--ddo-stop-on-collapse"])
def test_an_option_that_would_be_ignored_is_refused(flag: str) -> None:
    result = run(script(True), flag)
    assert result.exit_code == 2
    assert f"{flag.split('=')[0]} has no effect without --ddo" in result.output


@pytest.mark.parametrize(
    ("flag", "why"), [("--ddo-alpha=-1", "x>=0"), ("--ddo-beta=0", "x>0"), ("--ddo-stop-on-collapse=0", "x>0")]
)
def test_impossible_values_are_refused(flag: str, why: str) -> None:
    result = run(script(True), "--ddo=network.pkl", flag)
    assert result.exit_code == 2
    assert why in result.output


def test_the_collapse_bound_has_a_default_and_takes_a_value() -> None:
    for flag, bound in (("--ddo-stop-on-collapse", 2.0), ("--ddo-stop-on-collapse=0.5", 0.5)):
        seen: dict[str, Any] = {}
        assert run(script(True, seen), "--ddo=network.pkl", flag).exit_code == 0
        assert seen["ddo_stop_on_collapse"] == bound
