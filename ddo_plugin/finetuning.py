"""A configured finetuning run: what every integration needs between `configure` and the last step."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddo_plugin import plugins
from ddo_plugin.errors import UserError
from ddo_plugin.options import ddo_values
from ddo_plugin.records import Fakes, OnlineFakes, Reference, Run

if TYPE_CHECKING:
    from torch import Tensor

    from ddo_plugin.objective import Objective, Outcome, Terms


AGREEMENT = 0.05  # mean |reward| at which target and reference no longer pass for one network; bf16 reaches 0.025


@dataclass
class Finetuning:
    """The pieces that the hooks supplied, and the events that are reported to them."""

    run: Run
    objective: Objective
    reference: Reference
    fakes: Fakes | None  # None: the objective needs none, or the integration draws them itself

    def judge(self, terms: Terms, step: int) -> Outcome:
        """Apply the objective; on the first rank, hand its statistics to whoever listens."""
        outcome = self.objective(terms)
        if step == 0:
            _check_agreement(outcome.statistics)
        if _rank() == 0:
            plugins.manager().hook.ddo_statistics(run=self.run, step=step, statistics=outcome.statistics)
        return outcome

    def snapshot_written(self, path: Path, step: int) -> None:
        plugins.manager().hook.ddo_snapshot(run=self.run, path=path, step=step)

    def paused(self, step: int) -> None:
        plugins.manager().hook.ddo_pause(run=self.run, step=step)


_active: dict[str, Finetuning] = {}


def active(upstream: str) -> Finetuning:
    """The run that `prepare` made ready in this process, for what a native loop builds by name."""
    return _active[upstream]


def prepare(upstream: str, outdir: Path, options: Mapping[str, Any]) -> Finetuning:
    """Build objective, reference and fakes through the hooks; every missing piece is one clear line."""
    hook = plugins.manager().hook
    objective = _objective(hook, options)
    source = options["ddo"]
    reference = hook.ddo_reference(upstream=upstream, source=source, options=options)
    if reference is None:
        raise UserError(f"--ddo={source}: no plugin can load a reference for {upstream}; `ddo plugins` lists them")
    fakes = _fakes(hook, upstream, reference, options) if objective.needs_fakes else None
    if fakes is not None:
        _check_origin(fakes, reference, options)
    provenance = {
        "reference": {"source": reference.source, "sha256": reference.sha256},
        "fakes": dict(fakes.description) if fakes else None,
        "versions": {
            "ddo-plugin": version("ddo-plugin"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    }
    run = Run(upstream, outdir, ddo_values(options), provenance)
    drawn = None if isinstance(fakes, OnlineFakes) else fakes
    _active[upstream] = Finetuning(run, objective, reference, drawn)
    return _active[upstream]


def leave_if_continued(options: Mapping[str, Any], state: Path) -> None:
    """Ends the process, content, if --ddo-continue was given: `state` says that nothing is left to do."""
    if options["ddo_continue"]:
        if _rank() == 0:
            print(f"ddo: {state}: this round is finished, nothing to do", file=sys.stderr)
        raise SystemExit(0)


def _check_agreement(statistics: Mapping[str, Tensor]) -> None:
    """With θ = θ_ref every log-ratio is 0 (and the loss (1 + α) ln 2); anything else is another network."""
    rewards = [statistics[name].abs().mean() for name in ("rewards/real", "rewards/fake") if name in statistics]
    mean = max(map(float, rewards), default=0.0)
    if not mean <= AGREEMENT:
        raise UserError(
            f"target and reference are not the same network: rewards of the first step are {mean:.3g} instead of 0; "
            "start the round from the reference, without other weights, dropout or another precision"
        )


def _check_origin(fakes: Fakes | OnlineFakes, reference: Reference, options: Mapping[str, Any]) -> None:
    """The objective means samples of this very reference; others work against it."""
    made_by = fakes.description.get("reference_sha256")
    if made_by == reference.sha256:
        return
    network = f"sha256 {made_by[:12]}…, the reference's is {reference.sha256[:12]}…" if made_by else "unknown"
    message = f"--ddo-fakes={options['ddo_fakes']}: the network that made them is not known to be --ddo's ({network})"
    if options.get("ddo_strict"):
        raise UserError(f"{message}; make them anew, or drop --ddo-strict")
    if _rank() == 0:
        print(f"ddo: {message}", file=sys.stderr)


def _rank() -> int:
    import torch.distributed

    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if distributed else int(os.environ.get("RANK", "0"))


def _objective(hook: Any, options: Mapping[str, Any]) -> Objective:
    offers = reversed(hook.ddo_objectives())  # pluggy asks the latest plugin first; here its answer must come last
    known = {name: factory for offer in offers for name, factory in offer.items()}
    name = options["ddo_objective"]
    if name not in known:
        raise UserError(f"--ddo-objective={name}: unknown; plugins offer {', '.join(sorted(known))}")
    try:
        return known[name](options)
    except ValueError as error:
        raise UserError(f"--ddo-objective={name}: {error}") from None


def _fakes(hook: Any, upstream: str, reference: Reference, options: Mapping[str, Any]) -> Fakes | OnlineFakes:
    source = options.get("ddo_fakes")
    fakes = hook.ddo_fakes(upstream=upstream, source=source, reference=reference, options=options)
    if fakes is None and source is None:
        raise UserError("--ddo needs --ddo-fakes=PATH, samples of the reference to tell real data from")
    if fakes is None:
        raise UserError(f"--ddo-fakes={source}: no such reference set")
    return fakes
