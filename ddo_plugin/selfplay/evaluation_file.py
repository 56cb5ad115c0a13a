"""The file that an evaluation of self-play writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddo_plugin.base.reading import parsing, read_json

_REMEDY = "delete it and run the same command again to repeat the evaluation"
_NUMBERS = ("score", "spread", "logp_real")  # those that self-play and its report use


def read(path: Path) -> dict[str, Any]:
    """Return an evaluation. It holds at least the score, which can be NaN."""
    evaluation = read_json(path, _REMEDY)
    with parsing(f"{path}: not the result of an evaluation", _REMEDY):
        numbers = {name: float(evaluation[name]) for name in _NUMBERS if evaluation.get(name) is not None}
        if "score" not in numbers or numbers.get("spread", 0.0) < 0:
            raise ValueError("it has no score, or a negative spread")
        return {**evaluation, **numbers}


def shown(score: float, spread: float | None) -> str:
    """Return a score for people, with its standard deviation over the sampling seeds if there is one."""
    return f"{score:.4g} ± {digits(spread, 2)}" if spread else f"{score:.4g}"


def digits(value: float, count: int) -> str:
    """Return a number with so many significant digits, also if the last ones are 0."""
    return f"{value:#.{count}g}".rstrip(".")
