"""Types of command-line options that several commands use. Light to import: neither torch nor numpy."""

from __future__ import annotations

import math
import os
import re
import shlex
import stat
from pathlib import Path
from typing import Any

import click

MOST_SAMPLES = 10_000_000  # per command
MOST_AT_A_TIME = 1024  # commands
MOST_EVALUATIONS = 1000  # per command: evaluation seeds, or points of a curve
MOST_STEPS = 10_000  # of a sampler
LAST_SEED = (1 << 32) - 1  # a larger one would repeat the noise of another
LONGEST_NAME = 255  # bytes of a file or folder; known before the folders above it are made
LAST_CLASS = (1 << 31) - 1
AUTO = "auto"  # instead of a number: the run chooses it
Parameter = click.Parameter | None
Context = click.Context | None


class Finite(click.types.FloatParamType):
    """A float that is neither NaN nor infinite."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Number(click.FloatRange, Finite):
    """A finite float within bounds."""


class PossiblyInfinite(click.FloatRange):
    """A float within bounds that can be infinite but not NaN, which click takes as within any bounds."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Place(click.Path):
    """The path of a file or folder, which may exist or not.

    It is not empty: an unset shell variable would otherwise mean the current folder. It is neither a pipe, which can
    block, nor a device, which can be endless or would be replaced by a result. It is not the root, which a command
    would fill or search.
    """

    def __init__(self, **settings: Any):
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        if not str(value):
            self.fail("the path is empty; pass a file or folder.", param, ctx)
        if not os.path.abspath(value).strip(os.sep):  # noqa: PTH100, the value is not a Path yet
            self.fail(f"{str(value)!r} is the root of the file system; pass a file or folder in it.", param, ctx)
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(value).parts):
            self.fail(f"{str(value)!r} holds a name of more than {LONGEST_NAME} bytes.", param, ctx)
        try:
            mode = os.stat(value).st_mode  # noqa: PTH116, the value is not a Path yet
        except (FileNotFoundError, NotADirectoryError):
            return super().convert(value, param, ctx)
        except (OSError, ValueError) as error:
            self.fail(f"{str(value)!r} is no usable path: {getattr(error, 'strerror', error)}.", param, ctx)
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            self.fail(f"{str(value)!r} is neither a regular file nor a folder.", param, ctx)
        return super().convert(value, param, ctx)


class ShellWords(click.ParamType):
    """Options of another program in one text, with the quotes of a shell."""

    name = "options"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> str:
        try:
            shlex.split(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {str(error).lower()}.", param, ctx)
        return str(value)


class IntegerList(click.ParamType):
    """Integers and ranges separated by commas, such as 0,3,5-7."""

    name = "integers"

    def __init__(self, most: int = MOST_SAMPLES):
        self.most = most

    def convert(self, value: Any, param: Parameter, ctx: Context) -> list[int]:
        try:
            return value if isinstance(value, list) else integers(str(value), self.most)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class FloatList(click.ParamType):
    """Finite numbers separated by commas, such as 0,0.5,1."""

    name = "numbers"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> list[float]:
        try:
            return value if isinstance(value, list) else floats(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


def integers(text: str, most: int = MOST_SAMPLES) -> list[int]:
    """Return "0,3,5-7" as [0, 3, 5, 6, 7]."""
    ranges = integer_ranges(text)
    if sum(map(len, ranges)) > most:
        raise ValueError(f"{text!r} holds more than {most:,} numbers")
    if max(numbers[-1] for numbers in ranges if numbers) > LAST_SEED:
        raise ValueError(f"{text!r} holds a number above {LAST_SEED:,}")
    return [number for numbers in ranges for number in numbers]


def integer_ranges(text: str) -> list[range]:
    """Return "0,3,5-7" as ranges, however long they are; ranges that fall are empty."""
    ranges: list[range] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,20})(?:-(\d{1,20}))?\s*", part)
        if match is None:
            raise ValueError(f"{text!r} is not a list of numbers such as 0,3,5-7")
        first, last = int(match[1]), int(match[2] or match[1])
        ranges.append(range(first, last + 1))
    if not any(ranges):
        raise ValueError(f"{text!r} holds no number: write the smaller end of a range first, such as 5-7")
    return ranges


def floats(text: str) -> list[float]:
    """Return "0,0.5,1" as [0.0, 0.5, 1.0]."""
    try:
        numbers = [float(part) for part in text.split(",")]
        if not all(map(math.isfinite, numbers)):
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is not a list of numbers such as 0,0.5,1") from None
    if len(numbers) > MOST_EVALUATIONS:
        raise ValueError(f"a list of {len(numbers):,} numbers is too long; pass at most {MOST_EVALUATIONS:,}")
    return numbers
