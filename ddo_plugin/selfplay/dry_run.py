"""The commands of a self-play run, without running any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ddo_plugin.selfplay.journal import FILE_NAME, read
from ddo_plugin.selfplay.plan import Plan
from ddo_plugin.selfplay.steps import Steps
from ddo_plugin.selfplay.tasks import Folder, Task


def lines(plan: Plan, out: Path) -> Iterator[str]:
    """Every command below a comment that names it.

    What a later command gets from an earlier one's result stands in capitals, unless the run's journal knows it.
    """
    root = out.resolve()
    steps, known = Steps(plan, Folder(root)), _selected(plan, root)
    suffix, reference = plan.base.suffix, plan.base
    yield from _shown(steps.evaluation(0, plan.base))
    for number, this in enumerate(plan.rounds, 1):
        refset = steps.refset(number, reference)
        fakes = refset.out if refset else None
        yield from _shown(refset) if refset else ()
        for candidate in this.candidates:
            training = steps.training(number, candidate, reference, fakes)
            yield from _shown(training)
            yield "# … and for each snapshot that it leaves:"
            yield from _shown(steps.evaluation(number, training.out / f"SNAPSHOT{suffix}", candidate))
        reference = known.get(number, root / plan.name / f"BEST_OF_ROUND_{number}{suffix}")


def _shown(task: Task) -> Iterator[str]:
    yield f"# {task.name}"
    yield str(task.command)


def _selected(plan: Plan, root: Path) -> dict[int, Path]:
    facts = [fact for fact in read(root / FILE_NAME) if fact["fact"] == "selected" and fact["plan"] == plan.name]
    return {fact["round"]: root / fact["network"] for fact in facts}
