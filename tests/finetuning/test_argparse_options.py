"""The option group on argparse: the same names, checks and defaults as on click."""

from __future__ import annotations

import argparse
from typing import Any

import click
import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.finetuning import argparse_options
from ddo_plugin.finetuning.options import finetuning_options

OPTIONS = [
    *finetuning_options(alpha=4.0, beta=0.05),
    click.Option(["--ddo-iters"], type=click.IntRange(min=2), default=80),
]


def parse(*argv: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    argparse_options.add(parser, OPTIONS)
    return argparse_options.read(vars(parser.parse_args(argv)), OPTIONS)


def on_click(*argv: str) -> dict[str, Any]:
    return click.Command("train", params=OPTIONS).make_context("train", list(argv)).params


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--ddo=net.pth", "--ddo-alpha=50", "--ddo-iters", "7"],
        ["--ddo-strict", "--ddo-stop-on-collapse"],
        ["--ddo-stop-on-collapse=0.5", "--ddo-round=3"],
    ],
    ids=str,
)
def test_values_and_defaults_are_clicks(argv: list[str]) -> None:
    assert parse(*argv) == on_click(*argv)


def test_underscores_do_as_well() -> None:
    assert parse("--ddo_alpha=50", "--ddo_stop_on_collapse") == parse("--ddo-alpha=50", "--ddo-stop-on-collapse")


@pytest.mark.parametrize(("text", "meant"), [("1", True), ("true", True), ("0", False), ("False", False)])
def test_a_switch_takes_a_value_as_those_of_such_scripts_do(text: str, meant: bool) -> None:
    assert parse(f"--ddo_strict={text}")["ddo_strict"] is meant


@pytest.mark.parametrize("argv", [["--ddo-alpha=-1"], ["--ddo-iters=1"], ["--ddo-beta=none"], ["--ddo_strict=maybe"]])
def test_what_click_refuses_is_refused(argv: list[str]) -> None:
    with pytest.raises(click.BadParameter):
        parse(*argv)


def test_an_empty_value_as_of_an_unset_variable_is_named() -> None:
    with pytest.raises(UserError, match="--ddo: the value is empty"):
        parse("--ddo=", "--ddo-iters=2")


def test_help_names_the_group_and_the_defaults() -> None:
    parser = argparse.ArgumentParser()
    argparse_options.add(parser, OPTIONS)
    text = " ".join(parser.format_help().split())
    assert "DDO:" in text
    assert "Weight α of the loss on the fakes. [default: 4.0]" in text


def test_a_misspelt_option_that_the_script_would_pass_over_is_refused() -> None:
    with pytest.raises(UserError, match="--ddo_alhpa: no such option; did you mean --ddo_alpha"):
        argparse_options.refuse_misspelt(["--other", "--ddo_alhpa=3"], OPTIONS)
    argparse_options.refuse_misspelt(["--other", "--ddo_alpha=3", "--ddo-iters", "7"], OPTIONS)


@pytest.mark.parametrize("typed", ["--ddo-bet=3", "-ddo_beta=3", "-ddo-beta", "--ddo_bta"])
def test_an_option_that_is_shortened_or_has_one_dash_is_refused(typed: str) -> None:
    with pytest.raises(UserError, match=f"{typed.split('=')[0]}: no such option; did you mean --ddo_beta"):
        argparse_options.refuse_misspelt([typed], OPTIONS)


def test_help_is_shown_whatever_upstream_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--drop", help="0% of all")
    argparse_options.add(parser, OPTIONS)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "0% of all" in shown
    assert "--ddo-alpha" in shown
