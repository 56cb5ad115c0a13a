"""Types of options."""

from __future__ import annotations

import math
import os
from pathlib import Path

import click
import pytest

from ddo_plugin.base.option_types import (
    MOST_EVALUATIONS,
    FloatList,
    IntegerList,
    Place,
    PossiblyInfinite,
    ShellWords,
    integers,
)


def test_lists_of_integers_hold_numbers_and_ranges() -> None:
    assert integers("1,2, 5-10") == [1, 2, 5, 6, 7, 8, 9, 10]


def test_a_long_range_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ValueError, match="'0-99999999999' holds more than 10,000,000 numbers"):
        integers("0-99999999999")


def test_options_take_lists_and_values_that_are_converted_already() -> None:
    assert IntegerList().convert("0,3,5-7", None, None) == [0, 3, 5, 6, 7]
    assert FloatList().convert("0,0.5,1e3", None, None) == [0, 0.5, 1000]
    assert FloatList().convert([0.5], None, None) == [0.5]
    assert FloatList().convert(0.5, None, None) == [0.5]  # a number of a recipe


@pytest.mark.parametrize("text", ["", "cats", "1,", "3-", "-1", "1.5", "9" * 5000])
def test_other_text_is_not_a_list_of_integers(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not a list of numbers such as 0,3,5-7\."):
        IntegerList().convert(text, None, None)


@pytest.mark.parametrize("text", ["", "1,x", "1,nan", "1e400"])
def test_other_text_is_not_a_list_of_finite_numbers(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not a list of numbers such as 0,0\.5,1\."):
        FloatList().convert(text, None, None)


def test_infinity_is_within_bounds_and_nan_is_not() -> None:
    assert PossiblyInfinite(min=0).convert("inf", None, None) == math.inf
    assert PossiblyInfinite(min=0).convert("2.5", None, None) == 2.5
    for text in ("nan", "-1", "-inf"):
        with pytest.raises(click.BadParameter):
            PossiblyInfinite(min=0).convert(text, None, None)


@pytest.mark.parametrize("text", ["'--standalone", '"', "a\\"])
def test_options_of_another_program_need_paired_quotes(text: str) -> None:
    with pytest.raises(click.BadParameter):
        ShellWords().convert(text, None, None)
    assert ShellWords().convert("--a='b c'", None, None) == "--a='b c'"


@pytest.mark.parametrize(
    "name", ["", "fifo", "to-fifo", "loop", "loop/below", "x" * 300, "absent/" + "x" * 300, "nul\0", "/", "//", "/../"]
)
def test_a_place_is_neither_empty_nor_unusable_nor_a_pipe(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("to-fifo").symlink_to("fifo")
    Path("loop").symlink_to("loop")
    Path("file").touch()
    with pytest.raises(click.BadParameter):
        Place().convert(name, None, None)
    for good in ("file", ".", "absent", "absent/below"):
        assert Place().convert(good, None, None) == Path(good)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full", "/dev/zero"])
def test_a_device_is_no_place(device: str) -> None:
    """A result would take the place of the device itself."""
    with pytest.raises(click.BadParameter, match="neither a regular file nor a folder"):
        Place().convert(device, None, None)


def test_lists_that_no_command_could_work_off_are_refused() -> None:
    with pytest.raises(click.BadParameter, match="more than 1,000 numbers"):
        IntegerList(MOST_EVALUATIONS).convert("0-1000", None, None)
    with pytest.raises(click.BadParameter, match="at most 1,000"):
        FloatList().convert(",".join(["1"] * 1001), None, None)


def test_a_seed_that_repeats_the_noise_of_another_is_refused() -> None:
    assert integers("4294967295") == [4294967295]
    with pytest.raises(ValueError, match="above 4,294,967,295"):
        integers("4294967296")
