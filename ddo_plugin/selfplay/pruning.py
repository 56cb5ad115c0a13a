"""Which old snapshots may go: never a reference, never a winner, nothing that was not judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddo_plugin.jobs.runner import Runner


def prune(runner: Runner, plan: str, number: int, ranked: Sequence[Path]) -> None:
    """Delete those of a round's snapshots, best first, that the policy does not keep; sidecars and evaluations stay.

    The fact comes first: a kill in between leaves a file that the restarted run deletes.
    """
    keep = runner.policy.keep
    if keep == "all":
        return
    kept = 1 if keep == "best" else keep
    needed = {fact["network"] for name in ("selected", "winner") for fact in runner.journal.find(name)}
    for loser in ranked[kept:]:
        name = runner.relative(loser)
        if name not in needed:
            runner.journal.append("pruned", plan=plan, round=number, network=name)
            loser.unlink(missing_ok=True)


def is_pruned(runner: Runner, network: Path) -> bool:
    """Whether the journal says that this snapshot was deleted."""
    return bool(runner.journal.find("pruned", network=runner.relative(network)))
