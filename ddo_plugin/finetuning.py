"""A configured finetuning run: what every integration needs between `configure` and the last step."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddo_plugin import plugins
from ddo_plugin.errors import UserError
from ddo_plugin.options import ddo_values
from ddo_plugin.records import Fakes, Reference, Run

if TYPE_CHECKING:
    from ddo_plugin.objective import Objective, Outcome, Terms


@dataclass(frozen=True)
class Finetuning:
    """The pieces that the hooks supplied, and the two events that a training step reports."""

    run: Run
    objective: Objective
    reference: Reference
    fakes: Fakes | None  # None: the objective needs none

    def judge(self, terms: Terms, step: int) -> Outcome:
        """Apply the objective and hand its statistics to whoever listens."""
        outcome = self.objective(terms)
        plugins.manager().hook.ddo_statistics(run=self.run, step=step, statistics=outcome.statistics)
        return outcome

    def snapshot_written(self, path: Path, step: int) -> None:
        plugins.manager().hook.ddo_snapshot(run=self.run, path=path, step=step)


def prepare(upstream: str, outdir: Path, options: Mapping[str, Any]) -> Finetuning:
    """Build objective, reference and fakes through the hooks; every missing piece is one clear line."""
    hook = plugins.manager().hook
    objective = _objective(hook, options)
    source = options["ddo"]
    reference = hook.ddo_reference(upstream=upstream, source=source, options=options)
    if reference is None:
        raise UserError(f"--ddo={source}: no plugin can load a reference for {upstream}; `ddo plugins` lists them")
    fakes = _fakes(hook, upstream, reference, options) if objective.needs_fakes else None
    provenance = {
        "reference": {"source": reference.source, "sha256": reference.sha256},
        "fakes": dict(fakes.description) if fakes else None,
        "versions": {
            "ddo-plugin": version("ddo-plugin"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    }
    return Finetuning(Run(upstream, outdir, ddo_values(options), provenance), objective, reference, fakes)


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


def _fakes(hook: Any, upstream: str, reference: Reference, options: Mapping[str, Any]) -> Fakes:
    source = options.get("ddo_fakes")
    if source is None:
        raise UserError("--ddo needs --ddo-fakes=PATH, samples of the reference to tell real data from")
    fakes = hook.ddo_fakes(upstream=upstream, source=source, reference=reference, options=options)
    if fakes is None:
        raise UserError(f"--ddo-fakes={source}: no such reference set")
    return fakes
