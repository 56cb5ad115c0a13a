"""A recipe, from its start to its winner."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ddo_plugin.download import cache_entry, default_cache_dir, is_url, local_file
from ddo_plugin.errors import UserError
from ddo_plugin.files import sha256_file
from ddo_plugin.selfplay import plan as plans
from ddo_plugin.selfplay import slots
from ddo_plugin.selfplay.executor import Executor, LocalExecutor
from ddo_plugin.selfplay.plan import Plan
from ddo_plugin.selfplay.recipe import Recipe, Resources
from ddo_plugin.selfplay.rounds import Judged, play
from ddo_plugin.selfplay.scheduled import ScheduledExecutor
from ddo_plugin.selfplay.supervise import opened, supervise
from ddo_plugin.selfplay.tasks import key


def run(recipe: Recipe, out: Path) -> Judged:
    """Play the recipe in the folder `out`, or go on where an earlier process left it; returns the best network."""
    _refuse_what_is_not_built(recipe)
    base = local_file(recipe.start, sha256=recipe.sha256).resolve()
    plan = plans.of_recipe(recipe, base, recipe.sha256 or sha256_file(base))
    with opened(
        out, _executor(recipe.resources, out), key(asdict(replace(plan, base=Path(base.name)))), recipe.policy
    ) as runner:
        (best,) = supervise(runner, total_cost(plan), [partial(play, plan, runner)])
    return best


def planned(recipe: Recipe) -> Plan:
    """The plan of a recipe, without fetching or reading the network that it starts from."""
    start = cache_entry(recipe.start, default_cache_dir()) if is_url(recipe.start) else Path(recipe.start).resolve()
    sha256 = recipe.sha256 or (sha256_file(start) if start.is_file() else None)
    return plans.of_recipe(recipe, start, sha256)


def total_cost(plan: Plan) -> float:
    """What the progress bar counts to, as if every training left one snapshot."""
    trainings = [len(this.candidates) for this in plan.rounds]
    costs = plan.costs
    refsets = sum(any(one.needs_fakes for one in this.candidates) for this in plan.rounds)
    return costs.evaluation + refsets * costs.refset + sum(trainings) * (costs.training + costs.evaluation)


def _refuse_what_is_not_built(recipe: Recipe) -> None:
    if recipe.search["kind"] != "grid":
        raise UserError(f"search.kind = '{recipe.search['kind']}' is not available yet; use 'grid'")


def _executor(resources: Resources, out: Path) -> Executor:
    if resources.executor == "slurm":
        return ScheduledExecutor(resources.slots, out.resolve() / "jobs", resources.slurm)
    return LocalExecutor(slots.share(resources.slots), resources.threads)
