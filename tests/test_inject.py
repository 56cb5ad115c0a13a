"""The lines that a patch inserts: an option group, and a run that cannot forget DDO."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, MutableMapping
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result

from ddo_plugin import hookimpl, inject
from ddo_plugin.finetuning.options import finetuning_options
from ddo_plugin.hooks import plugins
from tests.processes import run_python


def one_step() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight], lr=0.1).step()


class Plugin:
    """A stranger's, that configures its own upstream."""

    @hookimpl
    def ddo_configure(self, upstream: str, config: MutableMapping[str, Any]) -> bool | None:
        if upstream != "mine":
            return None
        config["epochs"] = 1
        if config.get("awaits_loader"):
            inject.await_loader(upstream)
        return True

    @hookimpl
    def ddo_options(self, upstream: str) -> list[click.Option]:
        return finetuning_options(alpha=1.0, beta=0.3) if upstream == "mine" else []

    @hookimpl
    def ddo_loader(self, upstream: str, batches: Iterable[Any], steps: int) -> tuple[Iterable[Any], int] | None:
        return (batches, 2 * steps) if upstream == "mine" else None


@pytest.fixture(autouse=True)
def plugin():
    registered = Plugin()
    plugins.manager().register(registered)
    yield
    plugins.manager().unregister(registered)


def script(configure: bool, seen: dict[str, Any] | None = None) -> click.Command:
    """A training script in upstream's manner, with all of the inserted lines or without the last."""

    @click.command()
    @click.option("--lr", type=float, default=0.1)
    @inject.options("digits")
    def train(**options: Any) -> None:
        if seen is not None:
            seen.update(options)
        if configure:
            inject.configure("mine", {}, options)
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
    assert "digits's script never passed it to" in result.output


def test_configure_with_options_that_lost_ddo_does_not_pass_for_a_ddo_run() -> None:
    @click.command()
    @inject.options("digits")
    def train(**options: Any) -> None:
        inject.configure("digits", {}, {"lr": 0.1})
        one_step()

    assert run(train, "--ddo=network.pkl").exit_code == 2


def test_a_run_that_no_plugin_configures_is_refused() -> None:
    @click.command()
    @inject.options("digits")
    def train(**options: Any) -> None:
        inject.configure("nobody", {}, options)
        one_step()

    result = run(train, "--ddo=network.pkl")
    assert result.exit_code == 2
    assert "no installed plugin finetunes nobody" in result.output


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
    assert f"{flag.split('=')[0]}: no effect without --ddo" in result.output


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


# -- a script that parses its command line by argparse --------------------------------------------------------------


def argparse_script(*argv: str, hand_over: bool = True, awaits_loader: bool = True) -> tuple[argparse.Namespace, int]:
    """Its arguments, and the steps that it takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.set_defaults(awaits_loader=awaits_loader)
    inject.add_arguments("mine", parser)
    parsed, unknown = parser.parse_known_args(argv)
    inject.read_arguments("mine", parsed, unknown)
    steps = inject.loader("mine", [], 10)[1] if hand_over else 10
    one_step()
    return parsed, steps


def test_argparse_without_ddo_is_left_alone() -> None:
    parsed, steps = argparse_script()
    assert (parsed.ddo, parsed.epochs, steps) == (None, 5, 10)


def test_argparse_with_ddo_is_configured_and_gives_its_loader() -> None:
    parsed, steps = argparse_script("--ddo=net.pth", "--ddo_alpha=3")
    assert (parsed.ddo, parsed.ddo_alpha, parsed.ddo_beta, parsed.epochs, steps) == ("net.pth", 3.0, 0.3, 1, 20)


def test_argparse_whose_plugin_needs_no_loader_runs_without_one() -> None:
    parsed, _ = argparse_script("--ddo=net.pth", hand_over=False, awaits_loader=False)
    assert parsed.epochs == 1


def test_a_loader_that_no_plugin_answers_for_is_refused(capsys) -> None:
    inject.await_loader("nobody")
    with pytest.raises(SystemExit) as ended:
        inject.loader("nobody", [], 10)
    inject._guard.disarm()
    assert ended.value.code == 2
    assert "no installed plugin provides the batches of nobody" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "hand_over", "message"),
    [
        (["--ddo_alpha=3"], True, "--ddo-alpha: no effect without --ddo"),
        (["--ddo=net.pth", "--ddo_alpha=-3"], True, "x>=0"),
        (["--ddo=net.pth", "--ddo_alhpa=3"], True, "did you mean --ddo_alpha?"),
        (["--ddo=net.pth"], False, "mine's script never passed it to"),
    ],
)
def test_argparse_is_refused_in_one_line_with_status_2(argv, hand_over, message, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        argparse_script(*argv, hand_over=hand_over)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_plugin_that_does_not_fit_ends_the_script_in_one_line() -> None:
    code = (
        "from ddo_plugin.base.errors import UserError\n"
        "from ddo_plugin.hooks import plugins\n"
        "def manager(): raise UserError('it does not fit')\n"
        "plugins.manager = manager\n"
        "import ddo_plugin.inject"
    )
    done = run_python(["-c", code])
    assert (done.returncode, done.stderr) == (2, "Error: it does not fit\n")
