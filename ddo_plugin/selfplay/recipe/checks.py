"""The checks of a recipe. One pass finds all problems, each with its line and the nearest valid key."""

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
    """The problems of a recipe, ordered by line."""

    def __init__(self, source: Source):
        self.source = source
        self._found: list[tuple[int, str]] = []

    def add(self, place: Place, what: str) -> None:
        """Add a problem of the key at this place."""
        line, where = self.source.where(place)
        self._found.append((line, f"{where}: {_name(place)}: {what}"))

    def lines(self) -> list[str]:
        """Return one line for each problem."""
        return [text for _, text in sorted(self._found, key=lambda numbered: numbered[0])]


def check(source: Source) -> tuple[list[str], list[str]]:
    """Return a line for each problem, and a line for each thing that could not be checked."""
    problems, values = Problems(source), source.values
    tables = (*schema.TABLES, *schema.OPTION_TABLES, "expected", "change")
    _check_keys(problems, (), values, schema.TOP, also=tables)
    for name, keys in schema.TABLES.items():
        if (table := _table(problems, (name,), values, required=name not in schema.OPTIONAL)) is not None:
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
            required = not place and name != "refset"  # without [refset], the integration draws fakes itself
            if (table := _table(problems, (*place, name), layer, required=required)) is not None:
                own = schema.OPTION_TABLES[name]
                _check_options(problems, (*place, name), table, options[name], complete=not place, own=own)
    notes += _check_search(problems, values.get("search", {}), options["evaluation"])
    _check_merge(problems, values)
    _check_report(problems, values, [layer for _, layer in changes], options["evaluation"])
    _check_objectives(problems, [((), values), *changes])
    return problems.lines(), notes


def _check_search(problems: Problems, search: Any, evaluation: Options) -> list[str]:
    """Check what the table [search] asks for beyond its keys; return what could not be checked."""
    if not isinstance(search, dict):
        return []
    _check_changed_evaluation(problems, "search", search, evaluation)
    if search.get("kind") != "adaptive":
        return []
    if "rungs" not in search:
        problems.add(("search", "rungs"), f"is missing; it must be {schema.TABLES['search']['rungs'].meaning}")
    return [] if find_spec("optuna") else ["the search, because it needs optuna: pip install 'ddo-plugin[search]'"]


def _check_merge(problems: Problems, values: Mapping[str, Any]) -> None:
    """Require w = 1 in [merge] where the snapshots themselves are compared before they are merged."""
    merge, search = values.get("merge"), values.get("search")
    if not isinstance(merge, dict) or 1 in _list(merge.get("w", [1])):
        return
    if isinstance(search, dict) and search.get("kind") == "adaptive":
        problems.add(("merge", "w"), "needs the value 1 in an adaptive search, which compares the snapshots themselves")
    elif merge.get("snapshots", "all") != "all":
        problems.add(("merge", "w"), "needs the value 1, because merge.snapshots chooses the best snapshots")


def _check_report(
    problems: Problems, values: Mapping[str, Any], changes: Sequence[Mapping[str, Any]], evaluation: Options
) -> None:
    """Check what the table [report] asks for beyond its keys: its seeds must not have selected anything."""
    report = values.get("report")
    if not isinstance(report, dict):
        return
    if report.get("control") is True and report.get("enabled") is False:
        problems.add(("report", "control"), "has no effect with report.enabled = false; remove one of them")
    _check_changed_evaluation(problems, "report", report, evaluation)
    usual = schema.OPTION_TABLES["evaluation"]["seeds"].default
    selecting = {"evaluation.seeds": _seeds(values.get("evaluation"), usual)}
    for number, change in enumerate(changes, 1):
        selecting[f"change[{number}].evaluation.seeds"] = _seeds(change.get("evaluation"), [])
    search = values.get("search")
    if isinstance(search, dict) and search.get("kind") == "adaptive":
        selecting["search.seeds"] = _seeds(search, usual)
    for name, seeds in selecting.items():
        if both := [seed for seed in _seeds(report, []) if seed in seeds]:
            problems.add(("report", "seeds"), f"{both[0]} is also in {name}, which selects networks; use another seed")


def _seeds(table: Any, usual: Sequence[int]) -> list[Any]:
    return _list(table.get("seeds", usual) if isinstance(table, dict) else usual)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _check_changed_evaluation(problems: Problems, name: str, table: Mapping[str, Any], evaluation: Options) -> None:
    """Check the options that a table changes in the evaluation."""
    if isinstance(table.get("evaluation"), dict):
        changed = replace(evaluation, reserved={**evaluation.reserved, "seeds": f"set {name}.seeds"})
        _check_options(problems, (name, "evaluation"), table["evaluation"], changed, complete=False, own={})


def _check_keys(
    problems: Problems,
    place: Place,
    table: Mapping[str, Any],
    keys: Mapping[str, schema.Key],
    also: Iterable[str] = (),
    complete: bool = True,
) -> None:
    known = [*keys, *also]
    for name in table:
        if name not in known:
            problems.add((*place, name), f"unknown key{_nearest(name, known)}")
    for name, key in keys.items():
        if name in table:
            _check_value(problems, (*place, name), table[name], key)
        elif key.default is schema.REQUIRED and complete:
            problems.add((*place, name), f"is missing; it must be {key.meaning}")


def _check_value(problems: Problems, place: Place, value: Any, key: schema.Key) -> None:
    if not key.fits(value):
        problems.add(place, f"{as_toml(value)} is not {key.meaning}")


def _table(
    problems: Problems, place: Place, values: Mapping[str, Any], required: bool = True
) -> Mapping[str, Any] | None:
    """Return the table at this place. If it is missing, return an empty table if it is required, else None."""
    name = str(place[-1])
    if name not in values:
        return {} if required else None
    table = values[name]
    if isinstance(table, dict):
        return table
    problems.add(place, f"{as_toml(table)} is not a table")
    return None


def _changes(problems: Problems, values: Mapping[str, Any]) -> list[tuple[Place, Mapping[str, Any]]]:
    tables = values.get("change", [])
    if not isinstance(tables, list) or not all(isinstance(change, dict) for change in tables):
        problems.add(("change",), f"{as_toml(tables)} is not a list of tables; write [[change]]")
        return []
    changes: list[tuple[Place, Mapping[str, Any]]] = []
    for number, change in enumerate(tables):
        place = ("change", number)
        _check_keys(problems, place, change, {"from_round": schema.FROM_ROUND}, also=schema.CHANGEABLE)
        if (sweep := _table(problems, (*place, "sweep"), change, required=False)) is not None:
            _check_keys(problems, (*place, "sweep"), sweep, schema.TABLES["sweep"], complete=False)
        changes.append((place, change))
    return changes


def _upstream(problems: Problems, values: Mapping[str, Any]) -> Upstream | None:
    known = plugins.upstreams_by_name()
    name = values.get("upstream")
    if not isinstance(name, str):
        return None
    if name not in known:
        problems.add(("upstream",), f"no installed plugin knows {name!r}{_nearest(name, known)}")
        name = next(iter(difflib.get_close_matches(name, known, 1)), "")  # so that the options are checked, too
    return known.get(name)


def _options(
    problems: Problems, values: Mapping[str, Any], upstream: Upstream
) -> tuple[Mapping[str, Options], list[str]]:
    """Return the options that each table may hold. Upstream's flags are known only if its script can be read."""
    launch = values.get("launch", {})
    checkout = launch.get("checkout") if isinstance(launch, dict) else None
    folder: Path | None = None
    if isinstance(checkout, str):
        typed = problems.source.is_typed(("launch", "checkout"))
        folder = ((Path.cwd() if typed else problems.source.path.absolute().parent) / checkout).resolve()
    elif upstream.landmarks:
        problems.add(("launch", "checkout"), f"is missing; rounds run in a checkout of {upstream.title}")
    tables, report = recipe_options.of(upstream, folder)
    if report.problem:
        problems.add(("launch", "checkout"), report.problem)
    return tables, [report.note] if report.note else []


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
            problems.add((*place, name), f"cannot be set here; {options.reserved[name]}")
        elif name in options.known:
            if problem := options.known[name].problem(value):
                problems.add((*place, name), problem)
        elif options.complete:
            available = {*options.known, *own} - set(options.reserved)
            problems.add((*place, name), f"unknown option{_nearest(name, available)}")
        elif not isinstance(value, str | int | float | bool):
            problems.add((*place, name), f"{as_toml(value)} cannot be the value of an option")
    for name in options.required if complete else ():
        if name not in table and name not in own:
            problems.add((*place, name), "is missing; the command requires it")


def _check_objectives(problems: Problems, layers: Sequence[tuple[Place, Mapping[str, Any]]]) -> None:
    known = [name for offer in plugins.manager().hook.ddo_objectives() for name in offer]
    for place, layer in layers:
        sweep = layer.get("sweep")
        name = sweep.get("objective") if isinstance(sweep, dict) else None
        if isinstance(name, str) and name not in known:
            problems.add((*place, "sweep", "objective"), f"no installed plugin offers {name!r}{_nearest(name, known)}")


def as_toml(value: Any) -> str:
    """Return a value in the form of TOML, at most 60 characters of it."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _name(place: Place) -> str:
    """Return the name of a key, as "change[2].training.lr". Arrays are counted from 1."""
    text = ""
    for part in place:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), 1, cutoff=0)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
