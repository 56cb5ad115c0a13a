"""The commands of a self-play run, printed instead of run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ddo_plugin.jobs.journal import BEGUN, FILE_NAME, Fact, read
from ddo_plugin.jobs.runner import RunFolder, Task
from ddo_plugin.selfplay.recipe.plan import BASE, Candidate, Plan, Search, identity
from ddo_plugin.selfplay.steps import Steps
from ddo_plugin.selfplay.variants import Variant


def lines(plans: Sequence[Plan], out: Path) -> Iterator[str]:
    """Yield every command of the plans that a run plays, each after a comment that names it.

    A network that an earlier command would choose appears as a word in capitals, unless the journal already names it.
    """
    root = out.resolve()
    facts = _selected(plans[0], root)
    for plan in plans:
        selected = {fact["round"]: root / fact["network"] for fact in facts if fact["plan"] == plan.name}
        yield from _plan(plan, root, selected)


def _plan(plan: Plan, root: Path, selected: Mapping[int, Path]) -> Iterator[str]:
    steps = Steps(plan, RunFolder(root))
    suffix, reference = plan.base.suffix, plan.base
    yield from _lines(steps.evaluation(0, plan.base))
    for number in range(1, len(plan.rounds) + 1):
        refset = steps.refset(number, reference)
        fakes = refset.out if refset else None
        yield from _lines(refset) if refset else ()
        yield from _candidates(steps, number, reference, fakes)
        reference = selected.get(number, root / plan.name / f"BEST_OF_ROUND_{number}{suffix}")
    if plan.report:
        for role in plan.roles:
            network = plan.base if role == BASE else root / plan.name / f"WINNER{suffix}"
            yield from _lines(steps.judgement(role, network, plan.report))


def _candidates(steps: Steps, number: int, reference: Path, fakes: Path | None) -> Iterator[str]:
    """Return the commands of a round's candidates; in a search, as if no candidate were stopped."""
    this, suffix = steps.plan.at(number), steps.plan.base.suffix
    for part in (*(this.search.rungs if this.search else ()), None):
        if this.search:
            until = "to the end" if part is None else f"to {part} snapshot{'s' * (part > 1)}"
            yield f"# Round {number}, {until}: every candidate that is not stopped before"
        for candidate in this.candidates:
            training = steps.training(number, candidate, reference, fakes, part)
            yield from _lines(training)
            yield "# … and for each snapshot that it writes:"
            snapshot = training.out / f"SNAPSHOT{suffix}"
            for w in this.weights_at_once:
                yield from _network(steps, number, Variant(snapshot, w), reference, candidate, this.search)
    if this.search:
        yield f"# Round {number}, the best {this.search.finalists} of all snapshots:"
        finalist = steps.folder.root / steps.plan.name / f"FINALIST_OF_ROUND_{number}{suffix}"
        yield from _lines(steps.evaluation(number, finalist))
    if this.merge and this.merged_later:
        count = this.merged_later // len(this.merge.others)
        yield f"# Round {number}, each of the best {count} snapshots:"
        snapshot = steps.folder.root / steps.plan.name / f"SNAPSHOT_OF_ROUND_{number}{suffix}"
        for w in this.merge.others:
            yield from _network(steps, number, Variant(snapshot, w), reference)


def _network(
    steps: Steps,
    number: int,
    variant: Variant,
    reference: Path,
    candidate: Candidate | None = None,
    search: Search | None = None,
) -> Iterator[str]:
    if variant.is_merged:
        yield from _lines(steps.merge(number, variant, reference))
    yield from _lines(steps.evaluation(number, variant.network, candidate, search))


def _lines(task: Task) -> Iterator[str]:
    yield f"# {task.name}"
    yield str(task.command)


def _selected(plan: Plan, root: Path) -> Sequence[Fact]:
    """Return which networks the rounds selected, as far as a run that plays this plan has come."""
    selected: list[Fact] = []
    same = False
    for fact in read(root / FILE_NAME):
        if fact["fact"] == BEGUN:
            same = fact["settings"] == identity(plan)
        elif fact["fact"] == "selected" and same:
            selected.append(fact)
    return selected
