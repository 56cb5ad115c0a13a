"""A recipe: every setting of a self-play run in one file (docs/recipes.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from ddo_plugin.base.download import is_url
from ddo_plugin.base.errors import UserError
from ddo_plugin.jobs.runner import Policy
from ddo_plugin.selfplay.recipe import checks as recipe_checks
from ddo_plugin.selfplay.recipe import schema, toml_source
from ddo_plugin.selfplay.recipe.toml_source import Place, Source

PATHS = ("data", "ref", "vae", "gnet")  # options that name files, whoever asks for them; so do those that end in "path"
_COPY = "dataset:"  # labels as those of this dataset


@dataclass(frozen=True)
class Sweep:
    """What a round tries."""

    objective: str
    alpha: tuple[float, ...]
    beta: tuple[float, ...]

    def pairs(self) -> list[tuple[float, float]]:
        """Every α with every β."""
        return list(product(self.alpha, self.beta))


@dataclass(frozen=True)
class Resources:
    """Where steps run, and how many at a time."""

    executor: Literal["local", "slurm"]
    slots: int
    threads: int | None  # of one step; None: the cores shared among the slots
    slurm: Mapping[str, Any]  # submitit's parameters


@dataclass(frozen=True)
class Search:
    """How the best α and β of a round are found."""

    kind: Literal["grid", "adaptive"]
    rungs: tuple[int, ...]
    keep: float
    finalists: int
    seeds: tuple[int, ...]
    evaluation: Mapping[str, Any]  # what is cheaper than in a full evaluation


@dataclass(frozen=True)
class Settings:
    """What may change from round to round. Names are those of the options, without dashes."""

    sweep: Sweep
    refset: Mapping[str, Any] | None  # None: no reference sets are made; the integration draws fakes itself
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    evaluation_seeds: tuple[int, ...]
    refset_count: int = 0


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. Paths are absolute."""

    path: Path
    title: str
    upstream: str
    start: str  # path or URL
    sha256: str | None
    rounds: int
    seed: int
    expected: Mapping[str, float]
    checkout: Path | None
    torchrun: str
    search: Search
    policy: Policy
    resources: Resources
    base: Settings
    changes: tuple[tuple[int, Settings], ...]  # from which round on; ascending
    notes: tuple[str, ...] = ()  # what could not be checked

    def at(self, number: int) -> Settings:
        """The settings of round `number`, counted from 1."""
        return [self.base, *(settings for first, settings in self.changes if first <= number)][-1]

    def refset_settings(self, number: int) -> dict[str, Any]:
        """For a `RefsetStep`."""
        return {**self._launch(), **(self.at(number).refset or {})}

    def training_settings(self, number: int) -> dict[str, Any]:
        """For a `RoundStep`."""
        bound = self.policy.stop_on_collapse
        collapse = {} if bound is None else {"ddo-stop-on-collapse": bound}
        return {**self._launch(), "ddo-round": number, **collapse, **self.at(number).training}

    def evaluation_settings(self, number: int) -> dict[str, Any]:
        """For an `EvaluationStep`."""
        return {**self._launch(), **self.at(number).evaluation}

    def _launch(self) -> dict[str, Any]:
        checkout = {} if self.checkout is None else {"checkout": self.checkout}
        return {**checkout, "torchrun": self.torchrun} if self.torchrun else checkout


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; all that is wrong with it is reported at once."""
    source = toml_source.read(path, overrides)
    problems, notes = recipe_checks.check(source)
    if problems:
        raise UserError("\n".join([f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}", *problems]))
    return _build(source, tuple(notes))


def _build(source: Source, notes: tuple[str, ...]) -> Recipe:
    values = source.values
    top = {name: values.get(name, key.default) for name, key in schema.TOP.items()}
    tables = {name: _filled(values.get(name, {}), keys) for name, keys in schema.TABLES.items()}
    changes = sorted(enumerate(values.get("change", [])), key=lambda one: one[1]["from_round"])
    settings = [_settings(source, [], values)]
    for number in range(len(changes)):
        settings.append(_settings(source, changes[: number + 1], values))
    policy, checkout = tables["policy"], tables["launch"]["checkout"]
    return Recipe(
        path=source.path.absolute(),
        **{**top, "start": str(_located(source, ("start",), top["start"]))},
        expected=values.get("expected", {}),
        checkout=None if checkout is None else _located(source, ("launch", "checkout"), checkout),
        torchrun=tables["launch"]["torchrun"],
        search=_search(source, tables["search"]),
        policy=Policy(**{**policy, "stop_on_collapse": policy["stop_on_collapse"] or None}),
        resources=Resources(**tables["resources"]),
        base=settings[0],
        changes=tuple((change["from_round"], made) for (_, change), made in zip(changes, settings[1:], strict=True)),
        notes=notes,
    )


def _search(source: Source, table: Mapping[str, Any]) -> Search:
    evaluation = {
        name: _located(source, ("search", "evaluation", name), value) for name, value in table["evaluation"].items()
    }
    lists = {name: tuple(table[name]) for name in ("rungs", "seeds")}
    return Search(**{**table, **lists, "evaluation": evaluation})


def _filled(given: Mapping[str, Any], keys: Mapping[str, schema.Key]) -> dict[str, Any]:
    return {name: given.get(name, key.default) for name, key in keys.items()}


def _settings(source: Source, changes: Sequence[tuple[int, Any]], values: Mapping[str, Any]) -> Settings:
    """The settings with these changes made one after the other."""
    layers: list[tuple[Place, Mapping[str, Any]]] = [((), values)]
    layers += [(("change", index), change) for index, change in changes]
    made: dict[str, dict[str, Any]] = {name: {} for name in schema.CHANGEABLE}
    for place, layer in layers:
        for name in schema.CHANGEABLE:
            given = layer.get(name, {})
            made[name] |= {key: _located(source, (*place, name, key), value) for key, value in given.items()}
    sweep = _filled(made["sweep"], schema.TABLES["sweep"])
    count = made["refset"].pop("count", 0)
    seeds = made["evaluation"].pop("seeds", schema.OPTION_TABLES["evaluation"]["seeds"].default)
    return Settings(
        sweep=Sweep(sweep["objective"], tuple(sweep["alpha"]), tuple(sweep["beta"])),
        refset=made["refset"] if count else None,
        training=made["training"],
        evaluation=made["evaluation"],
        evaluation_seeds=tuple(seeds),
        refset_count=count,
    )


def _located(source: Source, place: Place, value: Any) -> Any:
    """Where a file is: relative to the recipe, or to the current folder if it was typed."""
    name = str(place[-1])
    if not isinstance(value, str) or is_url(value):
        return value
    folder = Path.cwd() if source.is_typed(place) else source.path.absolute().parent
    if value.startswith(_COPY):
        return f"{_COPY}{_plain(folder / value.removeprefix(_COPY))}"
    if place in (("start",), ("launch", "checkout")) or name in PATHS or name.endswith("path"):
        return _plain(folder / value)
    return value


def _plain(path: Path) -> Path:
    """Without `..`; a link keeps its own name, which may say what kind of file it is."""
    return path.parent.resolve() / path.name
