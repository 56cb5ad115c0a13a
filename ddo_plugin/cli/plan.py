"""`ddo plan`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddo_plugin.base.errors import UserError, printable
from ddo_plugin.selfplay.forecast.devices import DEVICES

if TYPE_CHECKING:
    from ddo_plugin.hooks.types import NetworkCount
    from ddo_plugin.selfplay.recipe.load import Recipe


@click.command("plan")
@click.argument("recipe")
@click.option(
    "--gpu",
    type=click.Choice(list(DEVICES), case_sensitive=False),
    default=next(iter(DEVICES)),
    show_default=True,
    help="Kind of GPU.",
)
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    help="GPUs that run one step together.  [default: the processes in the recipe's launch.torchrun]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of the recipe, as in sweep.alpha=[1,2]. May be repeated.",
)
def command(recipe: str, gpu: str, gpus: int | None, overrides: tuple[str, ...]) -> None:
    """Estimate what a recipe costs before you run it.

    RECIPE is a TOML file, or the name of a recipe that comes with the package. Prints GPU-hours, time, GPU memory and
    disk space. The time of a step is the number of its operations, divided by the share of the GPU's peak that it
    reaches. The operations are counted in the network; if the network is not at hand, published counts are used.
    """
    from ddo_plugin.selfplay.forecast.forecast import forecast, processes
    from ddo_plugin.selfplay.forecast.lines import lines
    from ddo_plugin.selfplay.recipe import load as recipes
    from ddo_plugin.selfplay.recipe.shipped import readable

    with readable(recipe) as file:
        loaded = recipes.load(file, overrides)
    torchrun = loaded.rounds[0].training.get("torchrun", "")
    gpus = gpus or processes(torchrun)
    if gpus is None:
        raise UserError(f'launch.torchrun = "{torchrun}" does not say how many processes it starts; add --gpus')
    network, counted_in = _count(loaded)
    for line in lines(forecast(loaded, network, DEVICES[gpu], gpus, counted_in), loaded.resources.slots):
        click.echo(printable(line))


def _count(recipe: Recipe) -> tuple[NetworkCount, str]:
    """Count the network that the recipe starts from, or read the counts of a published network; say which."""
    from ddo_plugin.base.download import cache_entry, default_cache_dir, is_url
    from ddo_plugin.checkouts import compat
    from ddo_plugin.checkouts.checkout import make_importable, open_checkout
    from ddo_plugin.hooks import plugins
    from ddo_plugin.selfplay.recipe.shipped import published_counts

    start = cache_entry(recipe.start, default_cache_dir()) if is_url(recipe.start) else Path(recipe.start)
    has_checkout = recipe.checkout is None or recipe.checkout.is_dir()
    if start.is_file() and has_checkout:
        if recipe.checkout is not None:
            make_importable(open_checkout(recipe.checkout).root)
        compat.apply()
        counted: NetworkCount | None = plugins.manager().hook.ddo_count(upstream=recipe.upstream, network=start)
        if counted is None:
            raise UserError(f"the integration of '{recipe.upstream}' does not count networks, so there is no plan")
        return counted, str(start)
    published = published_counts(Path(recipe.start).name)
    if published is None:
        missing = f"launch.checkout = {recipe.checkout}" if start.is_file() else f"start = {recipe.start}"
        raise UserError(
            f"{missing}: not on this machine, and no counts of {Path(recipe.start).name} come with the package; "
            "the plan needs the checkout and the network, which `ddo inspect URL` downloads"
        )
    return published, "a network of the published size"
