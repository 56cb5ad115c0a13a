"""The DDO options for scripts that use argparse, or a parser built on it, instead of click."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ddo_plugin.base.errors import UserError

ALONE = "\0"  # stands for an option without a value; nobody can type it
ALONE_TOO: dict[str, Any] = {"nargs": "?", "const": ALONE}


def add(parser: argparse.ArgumentParser, options: Sequence[click.Option]) -> None:
    """Add the options, each spelt with hyphens and with underscores. Options that are not typed set no attribute."""
    parser.formatter_class = _lenient(parser.formatter_class)
    group = parser.add_argument_group("DDO")
    for option in options:
        spellings = dict.fromkeys(spelling for flag in option.opts for spelling in (_underscored(flag), flag))
        group.add_argument(
            *spellings,
            dest=option.name,
            default=argparse.SUPPRESS,
            metavar=option.metavar or (option.name or "").upper(),
            help=_help(option),
            **(ALONE_TOO if _may_stand_alone(option) else {}),
        )


def refuse_empty(typed: Mapping[str, Any], options: Sequence[click.Option]) -> None:
    """Refuse an empty value, such as a shell variable that is not set leaves."""
    for option in options:
        if typed.get(option.name or "") == "":
            raise UserError(f"{option.opts[0]}: the value is empty; pass a value, or drop the option")


def read(typed: Mapping[str, Any], options: Sequence[click.Option]) -> dict[str, Any]:
    """Return every option's value, converted and checked by click; `typed` holds the text that was typed."""
    refuse_empty(typed, options)
    argv = [part for option in options if option.name in typed for part in _typed(option, typed[option.name])]
    return click.Command("options", params=list(options)).make_context("options", argv).params


def refuse_misspelt(arguments: Sequence[str], options: Sequence[click.Option]) -> None:
    """Refuse unknown options that begin with --ddo.

    A script that ignores unknown arguments would ignore a misspelt option, and argparse would expand a shortened one.
    """
    flags = [flag for option in options for flag in option.opts]
    known = [*map(_underscored, flags), *flags]
    for argument in arguments:
        flag = argument.split("=")[0]
        if flag.startswith(("--ddo", "-ddo")) and flag not in known:
            nearest = difflib.get_close_matches(_underscored("--" + flag.lstrip("-")), known, 1, cutoff=0)
            raise UserError(f"{flag}: no such option; did you mean {nearest[0]}?")


def _lenient(formatter: Any) -> Any:
    """Return a formatter that accepts a bare % in upstream's help, on which argparse's own raises an error."""

    class Lenient(formatter):  # type: ignore[misc]
        def _expand_help(self, action: argparse.Action) -> str:
            try:
                return str(super()._expand_help(action))
            except (ValueError, TypeError, KeyError):
                return action.help or ""

    return Lenient


def _underscored(flag: str) -> str:
    return "--" + flag[2:].replace("-", "_")


def _typed(option: click.Option, text: str) -> list[str]:
    """Return what one would type for click, where a switch takes no value."""
    flag = option.opts[0]
    if option.is_flag and text != ALONE:
        return [flag] if click.BOOL.convert(text, option, None) else []
    return [flag] if text == ALONE else [f"{flag}={text}"]


def _may_stand_alone(option: click.Option) -> bool:
    return option.is_flag or isinstance(option.flag_value, int | float | str)


def _help(option: click.Option) -> str:
    if option.hidden:
        return argparse.SUPPRESS
    shown = f" [default: {option.default}]" if option.show_default else ""
    return ((option.help or "") + shown).replace("%", "%%")
