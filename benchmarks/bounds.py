"""What `make bench` expects of each ratio, and how far off a ratio may be before the command fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Bound(NamedTuple):
    """A ratio that was measured, and a margin on both sides that is wider than the noise of a busy machine."""

    expected: float
    margin: float

    def holds(self, ratio: float) -> bool:
        """Return whether a ratio is within the margin; NaN is not."""
        return abs(ratio - self.expected) <= self.margin


CHECKOUTS = {"edm": "edm", "edm2": "edm2", "var": "VAR"}  # by upstream: the folder of its checkout
NO_CHECKOUT = "nothing"
DIFFUSION = {
    "step / its parts, CPU time": Bound(1.02, 0.2),
    "calls of a step, patched without --ddo / pristine": Bound(1, 0.002),
    "step, patched without --ddo / pristine, CPU time": Bound(1, 0.15),
    "start, patched / pristine, CPU time": Bound(1.05, 0.3),
}
BOUNDS: dict[str, dict[str, Bound]] = {  # by what a ratio needs: an upstream's checkout, or nothing
    NO_CHECKOUT: {
        "log-probabilities from the head / naive, CPU time": Bound(1.6, 0.8),
        "log-probabilities from the head / naive, peak memory": Bound(0.53, 0.2),
    },
    "edm": DIFFUSION,
    "edm2": DIFFUSION,
    "var": {
        "step / its parts, CPU time": Bound(1.1, 0.25),
        "calls of a step, patched without --ddo / pristine": Bound(1, 0.002),
        "step, patched without --ddo / pristine, CPU time": Bound(1, 0.15),
        "our sampler / upstream's, CPU time": Bound(0.5, 0.4),
    },
}


class Verdict(NamedTuple):
    """A row of the table, and whether it lets the command fail."""

    row: tuple[str, str, str, str, str]
    fails: bool


def judge(needs: str, measured: Mapping[str, float], bounds: Mapping[str, Bound]) -> list[Verdict]:
    """Return a verdict on each ratio that has a bound or was measured."""
    verdicts = []
    for name in {**bounds, **measured}:
        bound, ratio = bounds.get(name), measured.get(name)
        if bound is None:
            problem = "no bound is declared"
        elif ratio is None:
            problem = "not measured"
        else:
            problem = "" if bound.holds(ratio) else "off by a wide margin"
        expected = f"{bound.expected:g} ± {bound.margin:g}" if bound else ""
        shown = "" if ratio is None else f"{ratio:.3f}"
        verdicts.append(Verdict((needs, name, expected, shown, problem or "ok"), bool(problem)))
    return verdicts


def skipped(needs: str, reason: str) -> Verdict:
    """Return the row of ratios that cannot be measured here, which is no failure."""
    return Verdict((needs, "all", "", "", f"skipped: {reason}"), False)
