"""A recipe, from its start to its winner."""

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
from ddo_plugin.jobs.supervise import opened, supervise
from ddo_plugin.selfplay import plan as plans
from ddo_plugin.selfplay import survivors
from ddo_plugin.selfplay.plan import Costs, Plan, Round, identity
from ddo_plugin.selfplay.play import Judged, play
from ddo_plugin.selfplay.recipe.load import Recipe, Resources


def run(recipe: Recipe, out: Path) -> Judged:
    """Play the recipe in the folder `out`, or go on where an earlier process left it; returns the best network."""
    if recipe.search.kind == "adaptive":
        survivors.import_engine()  # missing, it is told now, not after the first trainings
    if recipe.checkout is not None:
        open_checkout(recipe.checkout)  # likewise
    if not is_url(recipe.start) and not Path(recipe.start).exists():
        raise UserError(
            f"start = {recipe.start}: there is no such file; the rounds begin from a network, and the recipe's header "
            "may say how to make it"
        )
    base = local_file(recipe.start, sha256=recipe.sha256).resolve()
    plan = plans.of_recipe(recipe, base, recipe.sha256 or sha256_file(base))
    with opened(out, _executor(recipe.resources, out), identity(plan), recipe.policy) as runner:
        (best,) = supervise(runner, total_cost(plan), [partial(play, plan, runner)])
    return best


def planned(recipe: Recipe) -> Plan:
    """The plan of a recipe, without fetching or reading the network that it starts from."""
    start = cache_entry(recipe.start, default_cache_dir()) if is_url(recipe.start) else Path(recipe.start).resolve()
    sha256 = recipe.sha256 or (sha256_file(start) if start.is_file() else None)
    return plans.of_recipe(recipe, start, sha256)


def total_cost(plan: Plan) -> float:
    """What the progress bar counts to, as if every training left one snapshot."""
    costs = plan.costs
    refsets = sum(any(one.needs_fakes for one in this.candidates) for this in plan.rounds)
    return costs.evaluation + refsets * costs.refset + sum(_trying(this, costs) for this in plan.rounds)


def _trying(this: Round, costs: Costs) -> float:
    """All candidates of a round; of a search, as many as may go on at each rung."""
    if this.search is None:
        return this.expected_trainings * (costs.training + costs.evaluation)
    return this.expected_trainings * (costs.training + costs.comparison) + this.search.finalists * costs.evaluation


def _executor(resources: Resources, out: Path) -> Executor:
    if resources.executor == "slurm":
        return ScheduledExecutor(resources.slots, out.resolve() / "jobs", resources.slurm)
    return LocalExecutor(slots.share(resources.slots), resources.threads)
