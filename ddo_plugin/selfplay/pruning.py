"""Deleting what a finished round leaves: training states, and snapshots that nothing needs any more.

Never a reference, a winner, or a snapshot that was not evaluated, neither itself nor merged.
"""

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


def discard(runner: Runner, merged: Path, evaluation: Path) -> None:
    """Delete a merged network after its evaluation, unless it was selected, or made again because it is the best."""
    network, evaluated = runner.relative(merged), runner.relative(evaluation)
    selected = {fact["network"] for name in ("selected", "winner") for fact in runner.journal.find(name)}
    finished = [fact["out"] for fact in runner.journal.find("finished") if fact["out"] in (network, evaluated)]
    if network not in selected and finished[-1:] == [evaluated]:
        merged.unlink(missing_ok=True)


def delete_states(runner: Runner, training: Path, patterns: Sequence[str]) -> None:
    """Delete the training states in the folder of a training whose round is over, unless the policy keeps all."""
    if runner.policy.keep != "all":
        for state in {state for pattern in patterns for state in training.glob(pattern)}:
            state.unlink()


def is_pruned(runner: Runner, network: Path) -> bool:
    """Return whether the journal says that this snapshot was deleted."""
    return bool(runner.journal.find("pruned", network=runner.relative(network)))
