"""The option group for scripts that parse their command line by argparse, or by what builds on it, instead of click."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ddo_plugin.errors import UserError


def add(parser: argparse.ArgumentParser, options: Sequence[click.Option]) -> None:
    """Add the options, each spelt with hyphens and with underscores. What is not given sets no attribute."""
    group = parser.add_argument_group("DDO")
    for option in options:
        spellings = dict.fromkeys(spelling for flag in option.opts for spelling in (_underscored(flag), flag))
        group.add_argument(
            *spellings,
            dest=option.name,
            default=argparse.SUPPRESS,
            metavar=option.metavar or (option.name or "").upper(),
            help=_help(option),
            nargs=None if (alone := _value_alone(option)) is None else "?",
            const=alone,
        )


def read(given: Mapping[str, Any], options: Sequence[click.Option]) -> dict[str, Any]:
    """Every option's value, converted and checked as click does; `given` holds what was typed, as text."""
    context = click.Context(click.Command("options"))
    values = {}
    for option in options:
        name = option.name or ""
        value = given[name] if name in given else option.get_default(context)
        values[name] = option.process_value(context, value)
    return values


def refuse_misspelt(unknown: Sequence[str], options: Sequence[click.Option]) -> None:
    """A script that goes on without the arguments it does not know would ignore a misspelt option of ours."""
    for argument in unknown:
        flag = argument.split("=")[0]
        if flag.startswith("--ddo"):
            known = [_underscored(opt) for option in options for opt in option.opts]
            nearest = difflib.get_close_matches(_underscored(flag), known, 1, cutoff=0)
            raise UserError(f"{flag}: no such option; did you mean {nearest[0]}?")


def _underscored(flag: str) -> str:
    return "--" + flag[2:].replace("-", "_")


def _value_alone(option: click.Option) -> str | None:
    """What the option means without a value; None if it needs one."""
    if option.is_flag:
        return "true"
    return str(option.flag_value) if isinstance(option.flag_value, int | float | str) else None


def _help(option: click.Option) -> str:
    shown = f" [default: {option.default}]" if option.show_default else ""
    return ((option.help or "") + shown).replace("%", "%%")
