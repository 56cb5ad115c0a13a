"""Damaged snapshots: the training run that wrote them is repeated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ddo_plugin.jobs.runner import DamagedError, Runner, Task
from ddo_plugin.selfplay import pruning
from ddo_plugin.selfplay.variants import Variant, training_of


def discard_damaged(runner: Runner, out: Path, evaluations: Mapping[Variant, Task]) -> bool:
    """Discard the training in `out` if a snapshot that is not evaluated yet is damaged; return whether it was.

    This happens once for a training. A second time, or if the folder also holds a reference of a later round, raise
    DamagedError instead.
    """
    damaged = [
        reason
        for variant, task in evaluations.items()
        if not runner.is_finished(task) and (reason := _damage(runner, variant.snapshot))
    ]
    if not damaged:
        return False
    name = runner.relative(out)
    needed = [runner.root / fact["network"] for kind in ("selected", "winner") for fact in runner.journal.find(kind)]
    if runner.journal.find("damaged", out=name) or out in map(training_of, needed):
        raise damaged[0]
    aside = out.with_name(f".{out.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    out.rename(aside)  # atomic: if the run is killed now, no half of the folder stays
    runner.journal.append("damaged", out=name, why=damaged[0].format_message())
    shutil.rmtree(aside)
    return True


def _damage(runner: Runner, snapshot: Path) -> DamagedError | None:
    if not snapshot.exists() and pruning.is_pruned(runner, snapshot):
        return None
    try:
        runner.check(snapshot)
    except DamagedError as error:
        return error
    return None
