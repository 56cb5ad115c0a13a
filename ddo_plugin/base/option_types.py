"""Groups of options that several integrations share; each sets the defaults of the paper or of its upstream."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    pass


class Finite(click.types.FloatParamType):
    """A float that is a number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Number(click.FloatRange, Finite):
    """The same, within bounds."""


class Place(click.Path):
    """A path that is told: an empty one, as of an unset variable of the shell, would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty; say which.", param, ctx)
        return super().convert(value, param, ctx)


MOST_SAMPLES = 10_000_000  # of one command


LAST_CLASS = (1 << 31) - 1
