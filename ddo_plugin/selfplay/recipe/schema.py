"""The keys of a recipe: which values each accepts, and its default."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ddo_plugin.base.option_types import MOST_AT_A_TIME, MOST_SAMPLES

REQUIRED = object()


@dataclass(frozen=True)
class Key:
    """One key. `fits` decides whether it accepts a value; `meaning` says in words which values it accepts."""

    meaning: str
    fits: Callable[[Any], bool]
    default: Any = REQUIRED


MOST_ROUNDS = 1000
LONGEST_LIST = 1000  # values


def _whole(value: Any, least: int, most: int = sys.maxsize) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _several(value: Any, fits: Callable[[Any], bool]) -> bool:
    fitting = isinstance(value, list) and 0 < len(value) <= LONGEST_LIST and all(map(fits, value))
    return fitting and len(set(value)) == len(value)


def whole(least: int, default: Any = REQUIRED, most: int | None = None) -> Key:
    """Return a key for a whole number."""
    meaning = f"a whole number >= {least}" if most is None else f"a whole number from {least} to {most:,}"
    return Key(meaning, lambda value: _whole(value, least, most or sys.maxsize), default)


def words(default: str, meaning: str) -> Key:
    """Return a key for options of another program, with the quotes of a shell."""
    return Key(meaning, lambda value: isinstance(value, str) and _are_words(value), default)


def _are_words(value: str) -> bool:
    try:
        shlex.split(value)
    except ValueError:
        return False
    return True


def text(default: Any = REQUIRED, meaning: str = "text") -> Key:
    """Return a key for text, which may be empty only if it is empty by default."""
    return Key(meaning, lambda value: isinstance(value, str) and (default == "" or value != ""), default)


def switch(default: bool) -> Key:
    """Return a key that is true or false."""
    return Key("true or false", lambda value: isinstance(value, bool), default)


def one_of(*choices: str) -> Key:
    """Return a key for one of these texts. The first is the default."""
    return Key(f"one of {', '.join(choices)}", lambda value: value in choices, choices[0])


SEEDS = Key("a list of different whole numbers", lambda v: _several(v, lambda seed: _whole(seed, 0)), [0])
TOP: Mapping[str, Key] = {
    "title": text(),
    "upstream": text(meaning="the name of an upstream"),
    "start": text(meaning="a path or URL"),
    "sha256": Key(
        "64 hexadecimal digits",
        lambda value: isinstance(value, str) and len(value) == 64 and set(value.lower()) <= set("0123456789abcdef"),
        None,
    ),
    "rounds": whole(1, most=MOST_ROUNDS),
    "seed": whole(0, 0),
}
TABLES: Mapping[str, Mapping[str, Key]] = {
    "launch": {
        "checkout": text(None, "the folder of upstream's checkout"),
        "torchrun": words("", "options of torchrun with paired quotes, or empty for plain python"),
    },
    "sweep": {
        "objective": text("ddo", "the name of an objective"),
        "alpha": Key(
            "a list of different numbers >= 0",
            lambda v: _several(v, lambda alpha: _number(alpha) and 0 <= alpha < 1e9),
        ),
        "beta": Key(
            "a list of different numbers > 0",
            lambda v: _several(v, lambda beta: _number(beta) and 0 < beta < 1e9),
        ),
    },
    "search": {
        "kind": one_of("grid", "adaptive"),
        "rungs": Key(
            "an ascending list of whole numbers >= 1",
            lambda v: _several(v, lambda count: _whole(count, 1)) and v == sorted(v),
            [],  # no default suits every recipe, so `checks` requires a value in an adaptive search
        ),
        "keep": Key("a number between 0 and 1", lambda value: _number(value) and 0 < value < 1, 0.3),
        "finalists": whole(1, 2),
        "seeds": SEEDS,
        "evaluation": Key("a table of options of the evaluation", lambda value: isinstance(value, dict), {}),
    },
    "merge": {
        "w": Key(
            "a list of different numbers",
            lambda v: _several(v, lambda w: _number(w) and abs(w) < 1e9),
        ),
        "snapshots": Key('"all" or a whole number >= 1', lambda v: v == "all" or _whole(v, 1), "all"),
    },
    "report": {
        "enabled": switch(True),
        "seeds": replace(SEEDS, default=None),  # None: seeds that the recipe uses nowhere else
        "control": switch(False),
        "evaluation": Key("a table of options of the evaluation", lambda value: isinstance(value, dict), {}),
    },
    "policy": {
        "retries": whole(0, 1),
        "allow_failures": switch(False),
        "keep": Key('"best", "all" or a whole number', lambda v: v in ("best", "all") or _whole(v, 0), "best"),
        "stop_on_collapse": Key(
            "a number > 0, or false", lambda value: value is False or (_number(value) and value > 0), 2.0
        ),
    },
    "resources": {
        "executor": one_of("local", "slurm"),
        "slots": whole(1, 1, MOST_AT_A_TIME),
        "threads": whole(1, None),
        "slurm": Key("a table of submitit's parameters", lambda value: isinstance(value, dict), {}),
    },
}
OPTIONAL = ("merge",)  # tables that mean something even if they are empty
# Tables that hold options of a command: these keys are not options, but settings of self-play.
OPTION_TABLES: Mapping[str, Mapping[str, Key]] = {
    "refset": {"count": whole(1, most=MOST_SAMPLES)},
    "training": {},
    "evaluation": {"seeds": SEEDS},
}
EXPECTED = Key("a number", _number)
FROM_ROUND = whole(2)
CHANGEABLE = ("refset", "training", "sweep", "evaluation")
