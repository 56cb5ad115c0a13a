"""The options that a recipe may set for the commands of a round, as far as they can be known before these run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts import script_flags
from ddo_plugin.checkouts.checkout import open_checkout
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Upstream
from ddo_plugin.sampling.options import refset_options

# Option that self-play sets for every upstream -> where its value comes from.
SWEPT = "self-play sets it from [sweep]"
PLAYED = "self-play sets it"
TRAINING = {
    **dict.fromkeys(("ddo-objective", "ddo-alpha", "ddo-beta"), SWEPT),
    **dict.fromkeys(("ddo", "ddo-fakes", "ddo-round", "ddo-sha256", "seed"), PLAYED),
    "ddo-stop-on-collapse": "set policy.stop_on_collapse",
    "ddo-pause-after": "self-play sets it from search.rungs",
}
REFSET = dict.fromkeys(("network", "out", "seed", "upstream"), PLAYED)
EVALUATION = dict.fromkeys(("network", "out"), PLAYED)


@dataclass(frozen=True)
class OptionValue:
    """What one option of a command accepts."""

    type: click.ParamType | None  # None: unknown
    flag: bool = False  # a switch, which takes no value

    def problem(self, value: Any) -> str:
        """Return why the option does not accept this value; an empty string if it does."""
        if self.flag:
            return "" if isinstance(value, bool) else f"{value!r} is not true or false"
        if not isinstance(value, str | int | float):
            return f"{value!r} cannot be the value of an option"
        if self.type is None or isinstance(self.type, click.Path):  # a file may be created before the run starts
            return ""
        try:
            self.type.convert(str(value), None, None)
        except click.UsageError as error:
            return error.message.rstrip(".")
        return ""


@dataclass(frozen=True)
class Options:
    """The options that a table may hold."""

    known: Mapping[str, OptionValue]
    complete: bool  # whether `known` holds all options, so that any other is an error
    reserved: Mapping[str, str] = field(default_factory=dict)  # option that a recipe must not set here -> why
    required: Sequence[str] = ()


@dataclass(frozen=True)
class CheckoutReport:
    """What is wrong with the checkout, or what could not be checked without it."""

    problem: str = ""
    note: str = ""


def of(upstream: Upstream, checkout: Path | None) -> tuple[Mapping[str, Options], CheckoutReport]:
    """Return the options of a round's three kinds of commands."""
    hook = plugins.manager().hook
    native, report = _native(upstream, checkout)
    own = list(plugins.collect(hook.ddo_options(upstream=upstream.name)))
    training = {**(_from_source(native) if native else {}), **_from_click(own)}
    sampling = [*refset_options(), *plugins.collect(hook.ddo_generator_options(upstream=upstream.name))]
    evaluation = list(plugins.collect(hook.ddo_evaluation_options(upstream=upstream.name)))
    reserved = {**TRAINING, **upstream.reserved}
    required = [option.name for option in native or () if option.required and option.name not in reserved]
    tables = {
        "training": Options(training, native is not None, reserved, required),
        "refset": Options(_from_click(sampling), True, REFSET, _required(sampling, REFSET)),
        "evaluation": Options(_from_click(evaluation), bool(evaluation), EVALUATION, _required(evaluation, EVALUATION)),
    }
    return tables, report


def _native(upstream: Upstream, checkout: Path | None) -> tuple[list[script_flags.Option] | None, CheckoutReport]:
    """Return the flags of upstream's training script, read from its source; None if they are unknown."""
    root = checkout if upstream.landmarks else Path()
    if root is None:
        return None, CheckoutReport()
    if not root.is_dir():
        note = f"the flags of {upstream.script}, because the checkout {root} does not exist"
        return None, CheckoutReport(note=note)
    try:
        if upstream.landmarks and (actual := open_checkout(root).upstream) != upstream:
            return None, CheckoutReport(problem=f"{root} is a checkout of {actual.title}, not of {upstream.title}")
        return script_flags.read(root, upstream.script), CheckoutReport()
    except UserError as error:
        return None, CheckoutReport(problem=error.message)


def _from_source(options: Iterable[script_flags.Option]) -> dict[str, OptionValue]:
    return {option.name: OptionValue(option.type, option.flag) for option in options}


def _from_click(options: Iterable[click.Parameter]) -> dict[str, OptionValue]:
    """Return the options by long name; an option with several long names appears several times."""
    return {
        spelling[2:]: OptionValue(option.type, bool(getattr(option, "is_flag", False)))
        for option in options
        for spelling in _spellings(option)
        if spelling.startswith("--")
    }


def _spellings(option: click.Parameter) -> list[str]:
    return [*option.opts, *(f"--{name}" for name in option.opts if not name.startswith("-"))]


def _required(options: Iterable[click.Parameter], reserved: Mapping[str, str]) -> list[str]:
    return [option.opts[0].lstrip("-") for option in options if option.required and option.opts[0][2:] not in reserved]
