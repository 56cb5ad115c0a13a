"""`--ddo-beta=auto`: the first steps of a run, the probe, choose β; then it stays.

β sets how far the target moves: r grows until β·r brakes it. The size of r thus shows β itself, α and the learning
rate, and no rule that used it held for several of them (benchmarks/fewer_runs.py). The probe therefore measures another
log-ratio: how much the log-likelihoods of two samples differ under the reference. In this unit, one β suited them all.
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
SPREAD = "logps/spread"  # the statistic from which a resumed run continues the probe
FAR = 3.0  # from upstream's default; the rule was tested on small data only
_REMEDY = "restore the file, or start the round anew in another folder"


@dataclass
class Calibration:
    """Chooses the β of a run, and applies the objective with it.

    The loss is multiplied by usual / β. Its gradient at r = 0 then does not depend on β. Otherwise the optimizer would
    have adapted in the probe to larger or smaller gradients than those that follow.
    """

    build: Callable[[float], Objective]  # β -> the objective
    usual: float  # upstream's default, which the probe uses
    steps: int  # of the probe
    outdir: Path
    beta: float = field(init=False)
    spread: float | None = field(default=None, init=False)  # of the whole probe
    _step: int | None = field(default=None, init=False)
    _measured: list[float] = field(default_factory=list, init=False)  # in each part of this step's batch
    _spreads: list[float] = field(default_factory=list, init=False)  # of the steps before it

    def __post_init__(self) -> None:
        self.beta = self.usual

    def judge(self, terms: Terms, step: int) -> Outcome:
        """Apply the objective with the β of this step, which all parts of its batch share."""
        if step != self._step:
            self._begin(step)
        outcome = self.build(self.beta)(terms)
        zero = outcome.real.new_zeros(()).double()
        own = {"beta": zero + self.beta, "probe": zero + (self.spread is None)}
        if self.spread is None:
            measured = likelihood_spread(terms)
            self._measured.append(measured)
            own[SPREAD] = zero + measured
        scale = self.usual / self.beta
        return replace(
            outcome, real=outcome.real * scale, fake=outcome.fake * scale, statistics={**outcome.statistics, **own}
        )

    def record(self) -> dict[str, Any]:
        """Return what sidecars say of β."""
        return {"beta": self.beta, "probe_steps": self.steps, "spread": self.spread}

    def _begin(self, step: int) -> None:
        if self._step is None and step > 0:
            self._restore(step)
        elif self._measured:
            self._spreads.append(math.fsum(self._measured) / len(self._measured))
        self._step = step
        self._measured.clear()
        if step >= self.steps and self.spread is None:
            self._choose()

    def _choose(self) -> None:
        """Set β for the rest of the run. The file is there before the first step that uses it."""
        finite = [spread for spread in self._spreads if 0 < spread < math.inf]
        if not finite:
            raise UserError(
                f"--ddo-beta=auto: none of the {self.steps} steps of the probe has finite log-likelihoods that differ, "
                "so there is nothing to choose β by; check the learning rate, or pass a number"
            )
        self.spread = math.fsum(finite) / len(finite)
        self.beta = 1 / self.spread
        if not ranks.is_first():
            return
        write_json(self.outdir / FILE_NAME, {"beta": self.beta, "spread": self.spread, "probe_steps": self.steps})
        far = not 1 / FAR <= self.beta / self.usual <= FAR
        advice = f"; this is far from the default, {self.usual:g}, so compare the two" if far else ""
        print(f"ddo: β = {self.beta:.4g} from now on, chosen in {self.steps} steps{advice}", flush=True)

    def _restore(self, step: int) -> None:
        """Continue where a resumed run was before this step; every rank gets what the first one reads."""
        known = Ranks(ranks.rank(), ranks.world_size()).agree(lambda: self._read(step))
        if isinstance(known, list):
            self._spreads = known
        else:
            self.beta, self.spread = known["beta"], known["spread"]

    def _read(self, step: int) -> list[float] | dict[str, float]:
        """Return the spreads of the steps before this one, or after the probe its result."""
        if step > self.steps:
            return _read_result(self.outdir / FILE_NAME)
        file = self.outdir / statistics.FILE_NAME
        rows = statistics.read(file) if file.exists() else []
        return [row[SPREAD] for row in rows if row["step"] < step and SPREAD in row]


def likelihood_spread(terms: Terms) -> float:
    """Return how much log p_ref differs between samples: a standard deviation, as the mean over the ranks.

    It is that of the difference between a real sample and its fake. With paired noise, what the noise level adds to
    both cancels.
    """
    import torch

    real, fake = terms.logp_ref_real, terms.logp_ref_fake
    if real is None or fake is None:
        raise UserError("--ddo-beta=auto needs the reference's log-likelihoods, which this upstream does not report")
    real = real if terms.kept is None else real[terms.kept]
    number = min(len(real), len(fake))
    spread = (real[:number].detach().double() - fake[:number].detach().double()).std()
    if ranks.world_size() > 1:
        torch.distributed.all_reduce(spread)
    return float(spread) / ranks.world_size()


def _read_result(file: Path) -> dict[str, float]:
    if not file.exists():
        raise UserError(f"{file}: no such file, but the probe of --ddo-beta=auto is over in this run; {_REMEDY}")
    content = read_json(file, _REMEDY)
    if not (isinstance(content, Mapping) and all(_positive(content.get(name)) for name in ("beta", "spread"))):
        raise UserError(f"{file}: does not hold a positive beta and spread; {_REMEDY}")
    return {name: float(content[name]) for name in ("beta", "spread")}


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf
