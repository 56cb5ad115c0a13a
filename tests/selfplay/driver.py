"""`ddo selfplay` without the seconds that it takes to check a recipe: `python driver.py FOLDER grid|adaptive`."""

from __future__ import annotations

import sys
from pathlib import Path

from ddo_plugin.jobs.interrupts import resumable
from ddo_plugin.jobs.runner import Policy
from ddo_plugin.selfplay.recipe.load import Recipe, Resources, Search, Settings, Sweep
from ddo_plugin.selfplay.run import run

FOLDER, KIND = Path(sys.argv[1]), sys.argv[2]
ALPHAS = {"grid": (2.0, 3.0), "adaptive": (2.0, 2.25, 3.0, 2.5)}[KIND]
SETTINGS = Settings(Sweep("ddo", ALPHAS, (0.1,)), {}, {"ddo-mode": "collapses"}, {}, (1,), refset_count=8)
RECIPE = Recipe(
    path=FOLDER / "recipe.toml",
    title="a stand-in",
    upstream="standin",
    start=str(FOLDER / "base.net"),
    sha256=None,
    rounds=3,
    seed=0,
    expected={},
    checkout=None,
    torchrun="",
    search=Search(KIND, (1,), 0.5, 1, (1,), {}),
    policy=Policy(retries=1, allow_failures=True, keep="best", stop_on_collapse=None),
    resources=Resources("local", 2, None, {}),
    base=SETTINGS,
    changes=((3, Settings(SETTINGS.sweep, {}, {}, {}, (1,), refset_count=8)),),
)

if __name__ == "__main__":
    with resumable():
        print(run(RECIPE, FOLDER / "selfplay-recipe").score)
