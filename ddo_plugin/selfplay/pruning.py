"""Which old snapshots may go: never a reference, never a winner, nothing that was not judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddo_plugin.selfplay.tasks import Runner

if TYPE_CHECKING:
    from ddo_plugin.selfplay.rounds import Judged


def prune(runner: Runner, plan: str, number: int, judged: Sequence[Judged]) -> None:
    """Delete the snapshots of a round that the policy does not keep; sidecars and evaluations stay.

    The fact comes first: a kill in between leaves a file that the restarted run deletes.
    """
    keep = runner.policy.keep
    if keep == "all":
        return
    kept = 1 if keep == "best" else keep
    needed = {fact["network"] for name in ("selected", "winner") for fact in runner.journal.find(name)}
    for loser in sorted(judged, key=lambda one: one.score)[kept:]:
        name = runner.relative(loser.network)
        if name not in needed:
            runner.journal.append("pruned", plan=plan, round=number, network=name)
            loser.network.unlink(missing_ok=True)


def is_pruned(runner: Runner, network: Path) -> bool:
    """Whether the journal says that this snapshot was deleted."""
    return bool(runner.journal.find("pruned", network=runner.relative(network)))
