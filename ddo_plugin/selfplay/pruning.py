"""Deleting old snapshots: never a reference, a winner, or a snapshot that was not evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddo_plugin.jobs.runner import Runner


def prune(runner: Runner, plan: str, number: int, ranked: Sequence[Path]) -> None:
    """Delete the snapshots of a round that the policy does not keep, but not their sidecars and evaluations.

    `ranked` lists the snapshots, best first. The journal records a deletion before it happens: if the run is killed in
    between, the resumed run deletes the file.
    """
    keep = runner.policy.keep
    if keep == "all":
        return
    kept = 1 if keep == "best" else keep
    needed = {fact["network"] for name in ("selected", "winner") for fact in runner.journal.find(name)}
    for snapshot in ranked[kept:]:
        name = runner.relative(snapshot)
        if name not in needed:
            runner.journal.append("pruned", plan=plan, round=number, network=name)
            snapshot.unlink(missing_ok=True)


def is_pruned(runner: Runner, network: Path) -> bool:
    """Return whether the journal says that this snapshot was deleted."""
    return bool(runner.journal.find("pruned", network=runner.relative(network)))
