"""`ddo selfplay` without the seconds that it takes to check a recipe: `python driver.py FOLDER KIND`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ddo_plugin.base.interrupts import resumable
from ddo_plugin.jobs.runner import Policy
from ddo_plugin.selfplay.recipe.load import Recipe, Resources
from ddo_plugin.selfplay.recipe.plan import Candidate, Merge, Report, Round, Search
from ddo_plugin.selfplay.run import run

FOLDER, KIND = Path(sys.argv[1]), sys.argv[2]
ALPHAS = {"grid": (2.0, 3.0), "adaptive": (2.0, 2.25, 3.0, 2.5), "merging": (2.0, 3.0)}[KIND]
EACH = Round(
    candidates=tuple(Candidate("ddo", alpha, 0.1) for alpha in ALPHAS),
    refset_count=8,
    evaluation_seeds=(1,),
    training={"ddo-mode": "collapses"},
    search=Search((1,), 0.5, 1, (1,)) if KIND == "adaptive" else None,
    merge=Merge((1.0, 1.5), best=1) if KIND == "merging" else None,
)
RECIPE = Recipe(
    path=FOLDER / "recipe.toml",
    title="a stand-in",
    upstream="standin",
    start=str(FOLDER / "base.net"),
    sha256=None,
    seed=0,
    rounds=(EACH, EACH, replace(EACH, training={}, merge=Merge((0.5, 1.5)) if KIND == "merging" else None)),
    expected={},
    checkout=None,
    policy=Policy(retries=1, allow_failures=True, keep="best", stop_on_collapse=None),
    resources=Resources("local", 2, None, {}),
    report=Report((2, 3)),
)

if __name__ == "__main__":
    with resumable():
        print(run(RECIPE, FOLDER / "selfplay-recipe").score)
