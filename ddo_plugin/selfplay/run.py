"""Playing a recipe from its first reference to its winner."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ddo_plugin.base.download import cache_entry, default_cache_dir, is_url, local_file
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.checkouts.checkout import open_checkout
from ddo_plugin.jobs import slots
from ddo_plugin.jobs.executor import Executor, LocalExecutor
from ddo_plugin.jobs.slurm import ScheduledExecutor
from ddo_plugin.jobs.supervise import open_runner, supervise
from ddo_plugin.selfplay import survivors
from ddo_plugin.selfplay.play import Evaluated, play
from ddo_plugin.selfplay.recipe.load import Recipe, Resources
from ddo_plugin.selfplay.recipe.plan import Plan, identity


def run(recipe: Recipe, out: Path) -> Evaluated:
    """Play the recipe in the folder `out`, or resume the run in it, and return the best network."""
    if any(settings.search for settings in recipe.rounds):
        survivors.import_engine()  # fails now rather than after the first trainings
    if recipe.checkout is not None:
        open_checkout(recipe.checkout)  # fails now, too
    if not is_url(recipe.start) and not Path(recipe.start).exists():
        raise UserError(
            f"start = {recipe.start}: no such file; create this network first, for instance by the commands at the top "
            "of the recipe"
        )
    base = local_file(recipe.start, sha256=recipe.sha256).resolve()
    plan = recipe.plan(base, recipe.sha256 or sha256_file(base))
    plans = played(plan)
    with open_runner(out, _executor(recipe.resources, out), identity(plan), recipe.policy) as runner:
        best, *_ = supervise(runner, sum(each.cost for each in plans), [partial(play, each, runner) for each in plans])
    return best


def played(plan: Plan) -> list[Plan]:
    """Return the plans that a run plays: that of its recipe, and its control if the recipe asks for one."""
    return [plan, plan.control()] if plan.report and plan.report.control else [plan]


def planned(recipe: Recipe) -> Plan:
    """Return the plan of a recipe without downloading the network that it starts from."""
    start = cache_entry(recipe.start, default_cache_dir()) if is_url(recipe.start) else Path(recipe.start).resolve()
    sha256 = recipe.sha256 or (sha256_file(start) if start.is_file() else None)
    return recipe.plan(start, sha256)


def _executor(resources: Resources, out: Path) -> Executor:
    if resources.executor == "slurm":
        return ScheduledExecutor(resources.slots, out.resolve() / "jobs", resources.slurm)
    return LocalExecutor(slots.share(resources.slots), resources.threads)
