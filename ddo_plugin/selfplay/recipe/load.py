"""A recipe: all settings of a self-play run in one file (docs/recipes.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from ddo_plugin.base.download import is_url
from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks import plugins
from ddo_plugin.jobs.runner import Policy
from ddo_plugin.selfplay.recipe import checks, schema, toml_source
from ddo_plugin.selfplay.recipe.plan import Candidate, Merge, Plan, Report, Round, Search
from ddo_plugin.selfplay.recipe.toml_source import Place, Source

FRESH_SEEDS = 3  # number of seeds with which the networks are judged at the end, unless the recipe names them
# Where a seed counts in steps of the number of samples, as in EDM, other numbers of samples can give the same images.
FAR = 1000  # so much larger, seeds select no image again even if they are of 1000 times fewer samples
COPY = "dataset:"  # prefix of the label choice "the labels of this dataset"


@dataclass(frozen=True)
class Resources:
    """Where steps run, and how many at a time."""

    executor: Literal["local", "slurm"]
    slots: int
    threads: int | None  # threads of one step; None: the slots share the cores
    slurm: Mapping[str, Any]  # submitit's parameters


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. Its paths are absolute."""

    path: Path
    title: str
    upstream: str
    start: str  # path or URL
    sha256: str | None
    seed: int
    rounds: tuple[Round, ...]
    expected: Mapping[str, float]
    checkout: Path | None
    policy: Policy
    resources: Resources
    report: Report | None = None
    notes: tuple[str, ...] = ()  # what could not be checked

    def plan(self, base: Path, base_sha256: str | None = None) -> Plan:
        """Return the plan of a run that starts from the network file `base`."""
        name = self.path.stem
        return Plan(name, self.upstream, base, self.rounds, self.seed, base_sha256=base_sha256, report=self.report)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, or refuse it with all problems at once."""
    source = toml_source.read(path, overrides)
    problems, notes = checks.check(source)
    if problems:
        raise UserError("\n".join([f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}", *problems]))
    return _Reader(source).recipe(tuple(notes))


class _Reader:
    """Builds a recipe from a source without problems."""

    def __init__(self, source: Source):
        self.source, self.values = source, source.values
        self.paths = plugins.upstreams_by_name()[self.values["upstream"]].paths
        self.tables = {name: _with_defaults(self.values.get(name, {}), keys) for name, keys in schema.TABLES.items()}
        policy = self.tables["policy"]
        self.policy = Policy(**{**policy, "stop_on_collapse": policy["stop_on_collapse"] or None})
        checkout = self.tables["launch"]["checkout"]
        self.checkout = None if checkout is None else self._located(("launch", "checkout"), checkout)

    def recipe(self, notes: tuple[str, ...]) -> Recipe:
        """Return the recipe."""
        top = _with_defaults(self.values, schema.TOP)
        rounds = tuple(self._round(number) for number in range(1, top["rounds"] + 1))
        return Recipe(
            path=self.source.path.absolute(),
            title=top["title"],
            upstream=top["upstream"],
            start=str(self._located(("start",), top["start"])),
            sha256=top["sha256"],
            seed=top["seed"],
            rounds=rounds,
            expected=self.values.get("expected", {}),
            checkout=self.checkout,
            policy=self.policy,
            resources=Resources(**self.tables["resources"]),
            report=self._report(rounds, top["seed"]),
            notes=notes,
        )

    def _round(self, number: int) -> Round:
        """Return round `number`, counted from 1. Each step gets the options of [launch] and of its own table."""
        settings = self._settings(number)
        sweep = _with_defaults(settings["sweep"], schema.TABLES["sweep"])
        count = settings["refset"].pop("count", 0)  # 0: no table [refset], so the integration draws fakes itself
        seeds = settings["evaluation"].pop("seeds", schema.OPTION_TABLES["evaluation"]["seeds"].default)
        launch = self._launch()
        bound = self.policy.stop_on_collapse
        collapse = {} if bound is None else {"ddo-stop-on-collapse": bound}
        evaluation = {**launch, **settings["evaluation"]}
        return Round(
            candidates=tuple(
                Candidate(sweep["objective"], alpha, beta, needs_fakes=count > 0)
                for alpha, beta in product(sweep["alpha"], sweep["beta"])
            ),
            refset_count=count,
            evaluation_seeds=tuple(seeds),
            refset={**launch, **(settings["refset"] if count else {})},
            training={**launch, "ddo-round": number, **collapse, **settings["training"]},
            evaluation=evaluation,
            search=self._search(evaluation),
            merge=self._merge(),
        )

    def _settings(self, number: int) -> dict[str, dict[str, Any]]:
        """Return the tables that [[change]] may change, as they are in round `number`."""
        changes = sorted(enumerate(self.values.get("change", [])), key=lambda numbered: numbered[1]["from_round"])
        layers: list[tuple[Place, Mapping[str, Any]]] = [((), self.values)]
        layers += [(("change", index), change) for index, change in changes if change["from_round"] <= number]
        settings: dict[str, dict[str, Any]] = {name: {} for name in schema.CHANGEABLE}
        for place, layer in layers:
            for name in schema.CHANGEABLE:
                table = layer.get(name, {})
                settings[name] |= {key: self._located((*place, name, key), value) for key, value in table.items()}
        return settings

    def _search(self, evaluation: Mapping[str, Any]) -> Search | None:
        """Return the search of a round with this full evaluation; None if the round is a grid."""
        table = self.tables["search"]
        if table["kind"] != "adaptive":
            return None
        rungs, seeds = tuple(table["rungs"]), tuple(table["seeds"])
        return Search(rungs, table["keep"], table["finalists"], seeds, {**evaluation, **self._changed("search")})

    def _merge(self) -> Merge | None:
        table = self.values.get("merge")
        if table is None:
            return None
        snapshots = table.get("snapshots", schema.TABLES["merge"]["snapshots"].default)
        return Merge(tuple(map(float, table["w"])), None if snapshots == "all" else snapshots)

    def _report(self, rounds: Sequence[Round], seed: int) -> Report | None:
        """Return how the networks are judged at the end: as in the last round, but with other seeds."""
        table = self.tables["report"]
        if not table["enabled"]:
            return None
        used = {seed + number for number in range(len(rounds) + 1)}  # also the seeds of reference sets
        used |= {seed for each in rounds for seed in each.selecting_seeds}
        evaluation = {**rounds[-1].evaluation, **self._changed("report")}
        alike = all(each.evaluation == evaluation for each in rounds)
        first = max(used) + (1 if alike else FAR)
        return Report(tuple(table["seeds"] or range(first, first + FRESH_SEEDS)), evaluation, table["control"])

    def _changed(self, table: str) -> dict[str, Any]:
        """Return the options of the evaluation that this table changes."""
        values = self.tables[table]["evaluation"]
        return {name: self._located((table, "evaluation", name), value) for name, value in values.items()}

    def _launch(self) -> dict[str, Any]:
        checkout = {} if self.checkout is None else {"checkout": self.checkout}
        torchrun = self.tables["launch"]["torchrun"]
        return {**checkout, "torchrun": torchrun} if torchrun else checkout

    def _located(self, place: Place, value: Any) -> Any:
        """Return a path as an absolute path: relative to the recipe, or to the current folder after --set."""
        name = str(place[-1])
        if not isinstance(value, str) or is_url(value):
            return value
        folder = Path.cwd() if self.source.is_typed(place) else self.source.path.absolute().parent
        if value.startswith(COPY):
            return f"{COPY}{_plain(folder / value.removeprefix(COPY))}"
        if place in (("start",), ("launch", "checkout")) or name in self.paths:
            return _plain(folder / value)
        return value


def _with_defaults(values: Mapping[str, Any], keys: Mapping[str, schema.Key]) -> dict[str, Any]:
    return {name: values.get(name, key.default) for name, key in keys.items()}


def _plain(path: Path) -> Path:
    """Return the path without `..`. A link keeps its own name, because its suffix may say what kind of file it is."""
    return path.parent.resolve() / path.name
