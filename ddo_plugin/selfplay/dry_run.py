"""The commands of a self-play run, without running any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ddo_plugin.jobs.journal import BEGUN, FILE_NAME, read
from ddo_plugin.jobs.runner import RunFolder, Task
from ddo_plugin.selfplay.recipe.plan import Plan, identity
from ddo_plugin.selfplay.steps import Steps


def lines(plan: Plan, out: Path) -> Iterator[str]:
    """Every command below a comment that names it.

    What a later command gets from an earlier one's result stands in capitals, unless the run's journal knows it.
    """
    root = out.resolve()
    steps, known = Steps(plan, RunFolder(root)), _selected(plan, root)
    suffix, reference = plan.base.suffix, plan.base
    yield from _shown(steps.evaluation(0, plan.base))
    for number in range(1, len(plan.rounds) + 1):
        refset = steps.refset(number, reference)
        fakes = refset.out if refset else None
        yield from _shown(refset) if refset else ()
        yield from _tried(steps, number, reference, fakes)
        reference = known.get(number, root / plan.name / f"BEST_OF_ROUND_{number}{suffix}")


def _tried(steps: Steps, number: int, reference: Path, fakes: Path | None) -> Iterator[str]:
    """The candidates of a round; in a search, as if all went on to the end."""
    this, suffix = steps.plan.at(number), steps.plan.base.suffix
    for part in (*(this.search.rungs if this.search else ()), None):
        if this.search:
            told = "to the end" if part is None else f"to {part} snapshot{'s' * (part > 1)}"
            yield f"# Round {number}, {told}: every candidate that has not lost by then"
        for candidate in this.candidates:
            training = steps.training(number, candidate, reference, fakes, part)
            yield from _shown(training)
            yield "# … and for each snapshot that it leaves:"
            yield from _shown(steps.evaluation(number, training.out / f"SNAPSHOT{suffix}", candidate, this.search))
    if this.search:
        yield f"# Round {number}, the best {this.search.finalists} of all snapshots:"
        finalist = steps.folder.root / steps.plan.name / f"FINALIST_OF_ROUND_{number}{suffix}"
        yield from _shown(steps.evaluation(number, finalist))


def _shown(task: Task) -> Iterator[str]:
    yield f"# {task.name}"
    yield str(task.command)


def _selected(plan: Plan, root: Path) -> dict[int, Path]:
    """What this very plan selected; other settings select others."""
    known: dict[int, Path] = {}
    same = False
    for fact in read(root / FILE_NAME):
        if fact["fact"] == BEGUN:
            same = fact["settings"] == identity(plan)
        elif fact["fact"] == "selected" and fact["plan"] == plan.name and same:
            known[fact["round"]] = root / fact["network"]
    return known
