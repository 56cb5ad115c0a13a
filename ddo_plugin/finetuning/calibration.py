"""`--ddo-beta=auto`: in a probe of the first steps, β follows the size of the log-ratios r; then it stays.

With β too small, r grows without a brake and the network is lost; with β too large, the network stays near the
reference. Whatever β is, r grows until β·r brakes it, so the size of r at a fixed β says little about β. The probe
therefore begins with a large β, and lowers it as r grows, such that β times the size keeps one value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddo_plugin.base import ranks
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import write_json
from ddo_plugin.base.rank_group import Ranks
from ddo_plugin.base.reading import read_json
from ddo_plugin.finetuning import statistics

if TYPE_CHECKING:
    from ddo_plugin.objective.ddo import Objective, Outcome, Terms

FILE_NAME = "ddo-beta.json"
LARGEST = 1.0  # the β of Theorem 3.1, for which the optimum is the distribution of the data
QUANTILE, TARGET = 0.9, 1.5  # |β·r| of so many samples is below the target; see benchmarks/fewer_runs.py
KEEP = 0.9  # share of the earlier steps in the moving average of the size
SIZE = "ratios/q90"  # the statistic from which a resumed run continues the probe
_REMEDY = "restore the file, or start the round anew in another folder"


@dataclass
class Calibration:
    """Chooses the β of a run, and applies the objective with it.

    The loss is multiplied by usual / β. Its gradient at r = 0 then does not depend on β. Otherwise the optimizer would
    have adapted to larger gradients than those that follow.
    """

    build: Callable[[float], Objective]  # β -> the objective
    usual: float  # upstream's default
    steps: int  # of the probe
    outdir: Path
    beta: float = field(init=False)
    size: float = field(default=0.0, init=False)  # the moving average
    fixed: bool = field(default=False, init=False)
    _step: int | None = field(default=None, init=False)
    _measured: list[float] = field(default_factory=list, init=False)  # in this step, one for each part of the batch

    def __post_init__(self) -> None:
        self.beta = self.usual  # r is 0 at first, so that β has no effect

    def judge(self, terms: Terms, step: int) -> Outcome:
        """Apply the objective with the β of this step, which all parts of its batch share."""
        if step != self._step:
            self._begin(step)
        outcome = self.build(self.beta)(terms)
        like = outcome.real.new_zeros(()).double()
        own = {"beta": like + self.beta, "probe": like + float(not self.fixed)}
        if not self.fixed:
            size = measure(terms)
            self._measured.append(size)
            own[SIZE] = like + size
        scale = self.usual / self.beta
        return replace(
            outcome, real=outcome.real * scale, fake=outcome.fake * scale, statistics={**outcome.statistics, **own}
        )

    def record(self) -> dict[str, Any]:
        """Return what sidecars say of β."""
        return {"beta": self.beta, "fixed": self.fixed, "probe_steps": self.steps, "q90": self.size}

    def _begin(self, step: int) -> None:
        if self._step is None:
            self._restore(step)
        else:
            self._follow(math.fsum(self._measured) / len(self._measured) if self._measured else math.nan)
        self._step = step
        self._measured.clear()
        if step >= self.steps and not self.fixed:
            self._fix()

    def _follow(self, size: float) -> None:
        """Take the size of r in a step into account, and set β for the next step."""
        if self.fixed or not math.isfinite(size):
            return
        self.size = KEEP * self.size + (1 - KEEP) * size if self.size else size
        self.beta = min(LARGEST, TARGET / self.size) if self.size else LARGEST

    def _fix(self) -> None:
        """Keep β for the rest of the run. The file is there before the first step that uses it."""
        if not self.size:
            raise UserError(
                f"--ddo-beta=auto: all log-ratios of the {self.steps} steps of the probe are 0 or not finite, so there "
                "is nothing to choose β by; check the learning rate, or pass a number"
            )
        self.fixed = True
        if not ranks.is_first():
            return
        write_json(self.outdir / FILE_NAME, {"beta": self.beta, "q90": self.size, "probe_steps": self.steps})
        slow = self.size <= TARGET / LARGEST
        advice = "; r has hardly moved, and a larger --ddo-probe would find a better β" if slow else ""
        print(
            f"ddo: β = {self.beta:.4g} from now on: after {self.steps} steps, |r| is below {self.size:.3g} for "
            f"{QUANTILE:.0%} of the samples{advice}",
            flush=True,
        )

    def _restore(self, step: int) -> None:
        """Continue where a resumed run was before this step; every rank gets what the first one reads."""
        if step == 0:
            return
        known = Ranks(ranks.rank(), ranks.world_size()).agree(lambda: self._read(step))
        if isinstance(known, list):
            for size in known:
                self._follow(size)
        else:
            self.beta, self.size, self.fixed = known["beta"], known["q90"], True

    def _read(self, step: int) -> list[float] | dict[str, float]:
        """Return the sizes of r in the steps before this one, or after the probe its result."""
        if step > self.steps:
            return _read_result(self.outdir / FILE_NAME)
        file = self.outdir / statistics.FILE_NAME
        rows = statistics.read(file) if file.exists() else []
        return [row[SIZE] for row in rows if row["step"] < step and SIZE in row]


def measure(terms: Terms) -> float:
    """Return the size of the log-ratios of a batch: a quantile of |r|, as the mean over the ranks."""
    import torch

    assert terms.r_real is not None and terms.r_fake is not None
    size = torch.cat([terms.r_real.detach(), terms.r_fake.detach()]).double().abs().quantile(QUANTILE)
    if ranks.world_size() > 1:
        torch.distributed.all_reduce(size)
    return float(size) / ranks.world_size()


def _read_result(file: Path) -> dict[str, float]:
    if not file.exists():
        raise UserError(f"{file}: no such file, but the probe of --ddo-beta=auto is over in this run; {_REMEDY}")
    content = read_json(file, _REMEDY)
    if not (isinstance(content, Mapping) and all(_positive(content.get(name)) for name in ("beta", "q90"))):
        raise UserError(f"{file}: does not hold a positive beta and q90; {_REMEDY}")
    return {name: float(content[name]) for name in ("beta", "q90")}


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf
