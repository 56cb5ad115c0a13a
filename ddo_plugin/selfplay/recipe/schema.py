"""What a recipe may say: every key of ours, what it must be, and what holds if it is not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED = object()


@dataclass(frozen=True)
class Key:
    """One key. `fits` tells whether a value is possible; `meant` says in words what is."""

    meant: str
    fits: Callable[[Any], bool]
    default: Any = REQUIRED


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _several(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(fits, value)) and len(set(value)) == len(value)


def whole(least: int, default: Any = REQUIRED) -> Key:
    return Key(f"a whole number from {least} on", lambda value: _whole(value, least), default)


def text(default: Any = REQUIRED, meant: str = "text") -> Key:
    return Key(meant, lambda value: isinstance(value, str) and (default == "" or value != ""), default)


def switch(default: bool) -> Key:
    return Key("true or false", lambda value: isinstance(value, bool), default)


def one_of(*choices: str) -> Key:
    """The first is the default."""
    return Key(f"one of {', '.join(choices)}", lambda value: value in choices, choices[0])


SEEDS = Key("a list of different whole numbers", lambda v: _several(v, lambda one: _whole(one, 0)), [0])
TOP: Mapping[str, Key] = {
    "title": text(),
    "upstream": text(meant="the name of an upstream"),
    "start": text(meant="a path or URL"),
    "sha256": Key(
        "64 hexadecimal digits",
        lambda value: isinstance(value, str) and len(value) == 64 and set(value.lower()) <= set("0123456789abcdef"),
        None,
    ),
    "rounds": whole(1),
    "seed": whole(0, 0),
}
TABLES: Mapping[str, Mapping[str, Key]] = {
    "launch": {
        "checkout": text(None, "the folder of upstream's checkout"),
        "torchrun": text("", "torchrun's options, or nothing for plain python"),
    },
    "sweep": {
        "objective": text("ddo", "the name of an objective"),
        "alpha": Key(
            "a list of different numbers from 0 on", lambda v: _several(v, lambda one: _number(one) and 0 <= one < 1e9)
        ),
        "beta": Key(
            "a list of different numbers above 0", lambda v: _several(v, lambda one: _number(one) and 0 < one < 1e9)
        ),
    },
    "search": {
        "kind": one_of("grid", "adaptive"),
        "rungs": Key(
            "an ascending list of whole numbers from 1 on",
            lambda v: _several(v, lambda one: _whole(one, 1)) and v == sorted(v),
            [],  # none would do for all: an adaptive search asks for them
        ),
        "keep": Key("a number above 0 and below 1", lambda value: _number(value) and 0 < value < 1, 0.3),
        "finalists": whole(1, 2),
        "seeds": SEEDS,
        "evaluation": Key("a table of options of the evaluation", lambda value: isinstance(value, dict), {}),
    },
    "policy": {
        "retries": whole(0, 1),
        "allow_failures": switch(False),
        "keep": Key('"best", "all" or a whole number', lambda v: v in ("best", "all") or _whole(v, 0), "best"),
        "stop_on_collapse": Key(
            "a number above 0, or false", lambda value: value is False or (_number(value) and value > 0), 2.0
        ),
    },
    "resources": {
        "executor": one_of("local", "slurm"),
        "slots": whole(1, 1),
        "threads": whole(1, None),
        "slurm": Key("a table of submitit's parameters", lambda value: isinstance(value, dict), {}),
    },
}
# Tables of options: beside those of somebody's command, these keys of ours.
OPTION_TABLES: Mapping[str, Mapping[str, Key]] = {
    "refset": {"count": whole(1)},
    "training": {},
    "evaluation": {"seeds": SEEDS},
}
EXPECTED = Key("a number", _number)
FROM_ROUND = whole(2)
CHANGEABLE = ("refset", "training", "sweep", "evaluation")
