"""Which options the commands of a round take, as far as they can be known before any is run."""

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

SWEPT = "self-play does, by [sweep]"
PLAYED = "self-play does"
ROUND = {
    **dict.fromkeys(("ddo-objective", "ddo-alpha", "ddo-beta"), SWEPT),
    **dict.fromkeys(("ddo", "ddo-fakes", "ddo-round", "ddo-sha256", "seed"), PLAYED),
    **dict.fromkeys(("outdir", "local_out_dir_path"), PLAYED),
    **dict.fromkeys(("resume", "transfer"), "a round begins from its reference, and goes on by itself"),
    "ddo-stop-on-collapse": "it is policy.stop_on_collapse",
    "ddo-pause-after": "self-play does, by search.rungs",
}
REFSET = dict.fromkeys(("network", "out", "seed", "upstream"), PLAYED)
EVALUATION = dict.fromkeys(("network", "out"), PLAYED)


@dataclass(frozen=True)
class Known:
    """One option of a command."""

    type: click.ParamType | None  # None: what it takes is not known
    flag: bool = False  # given without a value

    def complaint(self, value: Any) -> str:
        """Why the option would not take this value; nothing if it would."""
        if self.flag:
            return "" if isinstance(value, bool) else f"{value!r} is not true or false"
        if not isinstance(value, str | int | float):
            return f"{value!r} is no value of an option"
        if self.type is None or isinstance(self.type, click.Path):  # what is not there yet may still come
            return ""
        try:
            self.type.convert(str(value), None, None)
        except click.UsageError as error:
            return error.message.rstrip(".")
        return ""


@dataclass(frozen=True)
class Options:
    """What a table may hold."""

    known: Mapping[str, Known]
    closed: bool  # whether an option that is not known is none
    reserved: Mapping[str, str] = field(default_factory=dict)  # what is set elsewhere, and where
    required: Sequence[str] = ()


@dataclass(frozen=True)
class Why:
    """What is wrong with the checkout, or what could not be checked without it."""

    problem: str = ""
    note: str = ""


def of(upstream: Upstream, checkout: Path | None) -> tuple[Mapping[str, Options], Why]:
    """The options of a round's three kinds of commands."""
    hook = plugins.manager().hook
    native, why = _native(upstream, checkout)
    own = list(plugins.collect(hook.ddo_options(upstream=upstream.name)))
    training = {**(_from_source(native) if native else {}), **_from_click(own)}
    sampling = [*refset_options(), *plugins.collect(hook.ddo_generator_options(upstream=upstream.name))]
    judging = list(plugins.collect(hook.ddo_evaluation_options(upstream=upstream.name)))
    required = [one.name for one in native or () if one.required and one.name not in ROUND]
    found = {
        "training": Options(training, native is not None, ROUND, required),
        "refset": Options(_from_click(sampling), True, REFSET, _required(sampling, REFSET)),
        "evaluation": Options(_from_click(judging), bool(judging), EVALUATION, _required(judging, EVALUATION)),
    }
    return found, why


def _native(upstream: Upstream, checkout: Path | None) -> tuple[list[script_flags.Option] | None, Why]:
    """The flags of upstream's training script, from its source."""
    root = checkout if upstream.landmarks else Path()
    if root is None:
        return None, Why()
    if not root.is_dir():
        return None, Why(note=f"{root} is not there, so flags of {upstream.script} were not checked")
    try:
        if upstream.landmarks and (found := open_checkout(root).upstream) != upstream:
            return None, Why(problem=f"{root} is a checkout of {found.title}, not of {upstream.title}")
        return script_flags.read(root, upstream.script), Why()
    except UserError as error:
        return None, Why(problem=error.message)


def _from_source(options: Iterable[script_flags.Option]) -> dict[str, Known]:
    return {one.name: Known(one.type, one.flag) for one in options}


def _from_click(options: Iterable[click.Parameter]) -> dict[str, Known]:
    """By every long spelling."""
    return {
        spelling[2:]: Known(option.type, bool(getattr(option, "is_flag", False)))
        for option in options
        for spelling in _spellings(option)
        if spelling.startswith("--")
    }


def _spellings(option: click.Parameter) -> list[str]:
    return [*option.opts, *(f"--{one}" for one in option.opts if not one.startswith("-"))]


def _required(options: Iterable[click.Parameter], reserved: Mapping[str, str]) -> list[str]:
    return [option.opts[0].lstrip("-") for option in options if option.required and option.opts[0][2:] not in reserved]
