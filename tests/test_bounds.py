"""The verdicts of `make bench`, with figures that are made up: no test measures time."""

from __future__ import annotations

import math

import pytest

from benchmarks.bounds import BOUNDS, Bound, judge, skipped

DECLARED = {"step": Bound(1.02, 0.2)}


@pytest.mark.parametrize("ratio", [0.83, 1.02, 1.21])
def test_a_ratio_within_the_margin_passes(ratio: float) -> None:
    [verdict] = judge("edm", {"step": ratio}, DECLARED)
    assert not verdict.fails
    assert verdict.row == ("edm", "step", "1.02 ± 0.2", f"{ratio:.3f}", "ok")


@pytest.mark.parametrize("ratio", [0.81, 1.23, math.inf, math.nan])
def test_a_ratio_that_is_off_by_a_wide_margin_fails_on_either_side(ratio: float) -> None:
    [verdict] = judge("edm", {"step": ratio}, DECLARED)
    assert verdict.fails
    assert verdict.row[-1] == "off by a wide margin"


def test_a_declared_ratio_that_was_not_measured_fails() -> None:
    [verdict] = judge("edm", {}, DECLARED)
    assert verdict.fails
    assert verdict.row[-1] == "not measured"


def test_a_measured_ratio_without_a_bound_fails() -> None:
    verdicts = judge("edm", {"step": 1.0, "start": 1.0}, DECLARED)
    assert [(verdict.row[1], verdict.fails) for verdict in verdicts] == [("step", False), ("start", True)]


def test_a_missing_checkout_is_a_row_with_its_reason_and_no_failure() -> None:
    verdict = skipped("edm", "no checkout")
    assert not verdict.fails
    assert verdict.row[-1] == "skipped: no checkout"


def test_every_margin_is_narrower_than_what_it_bounds() -> None:
    assert all(0 < bound.margin < bound.expected for bounds in BOUNDS.values() for bound in bounds.values())
