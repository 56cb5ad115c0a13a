"""Everything that is wrong with a recipe, found in one pass, each with its line and the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Upstream
from ddo_plugin.selfplay.recipe import options as recipe_options
from ddo_plugin.selfplay.recipe import schema
from ddo_plugin.selfplay.recipe.options import Options
from ddo_plugin.selfplay.recipe.toml_source import Place, Source


class Problems:
    """What was found, in the order of the lines."""

    def __init__(self, source: Source):
        self.source = source
        self._found: list[tuple[int, str]] = []

    def add(self, place: Place, what: str) -> None:
        line, where = self.source.where(place)
        self._found.append((line, f"{where}: {_name(place)}: {what}"))

    def lines(self) -> list[str]:
        return [told for _, told in sorted(self._found, key=lambda one: one[0])]


def check(source: Source) -> tuple[list[str], list[str]]:
    """A line for each problem; and a line for each thing that could not be checked."""
    problems, values = Problems(source), source.values
    tables = (*schema.TABLES, *schema.OPTION_TABLES, "expected", "change")
    _check_keys(problems, (), values, schema.TOP, also=tables)
    for name, keys in schema.TABLES.items():
        if (table := _table(problems, (name,), values)) is not None:
            _check_keys(problems, (name,), table, keys)
    for name, value in (_table(problems, ("expected",), values) or {}).items():
        _check_value(problems, ("expected", name), value, schema.EXPECTED)
    changes = _changes(problems, values)
    upstream = _upstream(problems, values)
    if upstream is None:
        return problems.lines(), []
    options, notes = _options(problems, values, upstream)
    for place, layer in [((), values), *changes]:
        for name in schema.OPTION_TABLES:
            asked_for = not place and name != "refset"  # without it nothing is made ahead of time
            if (table := _table(problems, (*place, name), layer, required=asked_for)) is not None:
                own = schema.OPTION_TABLES[name]
                _check_options(problems, (*place, name), table, options[name], complete=not place, own=own)
    cheaper = values.get("search", {})
    if isinstance(cheaper, dict) and cheaper.get("kind") == "adaptive" and "rungs" not in cheaper:
        problems.add(("search", "rungs"), f"is missing; it must be {schema.TABLES['search']['rungs'].meant}")
    if isinstance(cheaper, dict) and isinstance(cheaper.get("evaluation"), dict):
        place, known = ("search", "evaluation"), options["evaluation"]
        cheap = replace(known, reserved={**known.reserved, "seeds": "it is search.seeds"})
        _check_options(problems, place, cheaper["evaluation"], cheap, complete=False, own={})
    if isinstance(cheaper, dict) and cheaper.get("kind") == "adaptive" and find_spec("optuna") is None:
        notes.append("the search itself: it needs optuna (pip install 'ddo-plugin[search]')")
    _check_objectives(problems, [((), values), *changes])
    return problems.lines(), notes


def _check_keys(
    problems: Problems,
    place: Place,
    given: Mapping[str, Any],
    keys: Mapping[str, schema.Key],
    also: Iterable[str] = (),
    complete: bool = True,
) -> None:
    known = [*keys, *also]
    for name in given:
        if name not in known:
            problems.add((*place, name), f"there is no such key{_nearest(name, known)}")
    for name, key in keys.items():
        if name in given:
            _check_value(problems, (*place, name), given[name], key)
        elif key.default is schema.REQUIRED and complete:
            problems.add((*place, name), f"is missing; it must be {key.meant}")


def _check_value(problems: Problems, place: Place, value: Any, key: schema.Key) -> None:
    if not key.fits(value):
        problems.add(place, f"{shown(value)} is not {key.meant}")


def _table(
    problems: Problems, place: Place, values: Mapping[str, Any], required: bool = True
) -> Mapping[str, Any] | None:
    """The table of that name; an empty one where there is none, if its keys are to be looked for all the same."""
    name = str(place[-1])
    if name not in values:
        return {} if required else None
    table = values[name]
    if isinstance(table, dict):
        return table
    problems.add(place, f"{shown(table)} is not a table")
    return None


def _changes(problems: Problems, values: Mapping[str, Any]) -> list[tuple[Place, Mapping[str, Any]]]:
    given = values.get("change", [])
    if not isinstance(given, list) or not all(isinstance(change, dict) for change in given):
        problems.add(("change",), f"{shown(given)} is not a list of tables: write [[change]]")
        return []
    changes: list[tuple[Place, Mapping[str, Any]]] = []
    for number, change in enumerate(given):
        place = ("change", number)
        _check_keys(problems, place, change, {"from_round": schema.FROM_ROUND}, also=schema.CHANGEABLE)
        if (sweep := _table(problems, (*place, "sweep"), change, required=False)) is not None:
            _check_keys(problems, (*place, "sweep"), sweep, schema.TABLES["sweep"], complete=False)
        changes.append((place, change))
    return changes


def _upstream(problems: Problems, values: Mapping[str, Any]) -> Upstream | None:
    known = {one.name: one for one in plugins.collect(plugins.manager().hook.ddo_upstreams())}
    name = values.get("upstream")
    if not isinstance(name, str):
        return None
    if name not in known:
        problems.add(("upstream",), f"no installed plugin knows {name!r}{_nearest(name, known)}")
        name = next(iter(difflib.get_close_matches(name, known, 1)), "")  # a misspelt one says what the rest must be
    return known.get(name)


def _options(
    problems: Problems, values: Mapping[str, Any], upstream: Upstream
) -> tuple[Mapping[str, Options], list[str]]:
    """What each table of options may hold; upstream's own flags only if its script can be read."""
    launch = values.get("launch", {})
    checkout = launch.get("checkout") if isinstance(launch, dict) else None
    folder: Path | None = None
    if isinstance(checkout, str):
        typed = problems.source.is_typed(("launch", "checkout"))
        folder = ((Path.cwd() if typed else problems.source.path.absolute().parent) / checkout).resolve()
    elif upstream.landmarks:
        problems.add(("launch", "checkout"), f"is missing; rounds run in a checkout of {upstream.title}")
    found, why = recipe_options.of(upstream, folder)
    if why.problem:
        problems.add(("launch", "checkout"), why.problem)
    return found, [why.note] if why.note else []


def _check_options(
    problems: Problems,
    place: Place,
    table: Mapping[str, Any],
    options: Options,
    complete: bool,
    own: Mapping[str, schema.Key],
) -> None:
    _check_keys(problems, place, table, own, also=table, complete=complete)
    for name, value in table.items():
        if name in own:
            continue
        if name in options.reserved:
            problems.add((*place, name), f"is not set here: {options.reserved[name]}")
        elif name in options.known:
            if complaint := options.known[name].complaint(value):
                problems.add((*place, name), complaint)
        elif options.closed:
            problems.add(
                (*place, name),
                f"there is no such option{_nearest(name, {*options.known, *own} - set(options.reserved))}",
            )
        elif not isinstance(value, str | int | float | bool):
            problems.add((*place, name), f"{shown(value)} is no value of an option")
    for name in options.required if complete else ():
        if name not in table and name not in own:
            problems.add((*place, name), "is missing; the command asks for it")


def _check_objectives(problems: Problems, layers: Sequence[tuple[Place, Mapping[str, Any]]]) -> None:
    known = [name for offer in plugins.manager().hook.ddo_objectives() for name in offer]
    for place, layer in layers:
        sweep = layer.get("sweep")
        name = sweep.get("objective") if isinstance(sweep, dict) else None
        if isinstance(name, str) and name not in known:
            problems.add((*place, "sweep", "objective"), f"no installed plugin offers {name!r}{_nearest(name, known)}")


def shown(value: Any) -> str:
    """A value as TOML has it, cut short."""
    told = str(value).lower() if isinstance(value, bool) else repr(value)
    return told if len(told) <= 60 else told[:59] + "…"


def _name(place: Place) -> str:
    """ "change[2].training.lr": arrays are counted from 1, as people do."""
    told = ""
    for part in place:
        told += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if told else part
    return told


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1, cutoff=0)
    return f"; did you mean {found[0]!r}?" if found else ""
