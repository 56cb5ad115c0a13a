"""How far a run is: from its journal and its progress files, also while another process works on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddo_plugin.base.progress import read_fraction
from ddo_plugin.jobs.folder_lock import is_held
from ddo_plugin.jobs.journal import BEGUN, FILE_NAME, read
from ddo_plugin.selfplay.recipe.plan import Candidate, Costs, Workload
from ddo_plugin.selfplay.steps import COMPARISON, EVALUATION, REFSET, TRAINING

Fact = Mapping[str, Any]
ENDS = ("finished", "failed", "abandoned", "collapsed", "damaged")


def lines(out: Path) -> Iterator[str]:
    """What a person wants to know of the run in a folder."""
    current = _current(read(out / FILE_NAME))
    for plan in _plans(current):
        yield from _plan(plan, current)
    yield from now(out)


def now(out: Path) -> Iterator[str]:
    """What runs, what did not end well, and how long it will still take."""
    facts, working = read(out / FILE_NAME), is_held(out)
    current = _current(facts)
    plans = _plans(current)
    yield from _steps(out, facts, current, working)
    if not plans:
        yield f"{out}: nothing has begun"
    elif len([fact for fact in current if fact["fact"] == "winner"]) == len(plans):
        yield "finished"
    elif working:
        yield f"running; {_time_left(out, plans, facts)}"
    else:
        yield "not running; the same command goes on"


def _plans(facts: Sequence[Fact]) -> Sequence[Fact]:
    return [fact for fact in facts if fact["fact"] == "plan"]


def _current(facts: Sequence[Fact]) -> Sequence[Fact]:
    """What the current run concluded: an earlier one in the folder had other settings."""
    begun = [place for place, fact in enumerate(facts) if fact["fact"] == BEGUN]
    return facts[begun[-1] if begun else 0 :]


def _plan(plan: Fact, facts: Sequence[Fact]) -> Iterator[str]:
    mine = [fact for fact in facts if fact.get("plan") == plan["plan"]]
    evaluated = [fact for fact in mine if fact["fact"] == "evaluated"]
    yield f"{plan['plan']} ({plan['upstream']}), {len(plan['rounds'])} rounds"
    for number, announced in enumerate([{}, *plan["rounds"]]):
        here = [fact for fact in evaluated if fact["round"] == number]
        selected = [fact["network"] for fact in mine if fact["fact"] == "selected" and fact["round"] == number]
        chosen = [fact for fact in here if not number or fact["network"] in selected[-1:]]
        if chosen:
            yield f"  {f'round {number}' if number else 'base':8}  {_told(chosen[-1])}"
        elif number and any(fact["round"] == number - 1 for fact in evaluated):
            yield f"  round {number:<2}  {_so_far(mine, number, announced)}"
            break
    if evaluated:
        yield f"  best      {_told(min(evaluated, key=_score))}"


def _so_far(facts: Sequence[Fact], number: int, announced: Fact) -> str:
    """Of a round that goes on: what was judged; or in a search, which ends with that, what was compared."""
    here = {name: [fact for fact in facts if fact["fact"] == name and fact["round"] == number] for name in _FOUND}
    how, found = ("compared", here["compared"]) if here["compared"] else ("judged", here["evaluated"])
    tried = len({str(fact["candidate"]) for fact in found})
    stopped = f", {len(here['dropped'])} stopped" if here["dropped"] else ""
    return f"{tried} of {announced['candidates']} candidates {how}, {len(found)} snapshots{stopped}"


_FOUND = ("evaluated", "compared", "dropped")


def _told(evaluated: Fact) -> str:
    candidate = f"  {Candidate(**evaluated['candidate'])}" if evaluated["candidate"] else ""
    return f"{evaluated['score']:.4g}{candidate}  {evaluated['network']}"


def _score(evaluated: Fact) -> float:
    return math.inf if math.isnan(evaluated["score"]) else float(evaluated["score"])


def _steps(out: Path, facts: Sequence[Fact], current: Sequence[Fact], working: bool) -> Iterator[str]:
    """Steps that run, and those that did not end well; not what a run with other settings began."""
    for name, last in _last(facts).items():
        task = next((fact["task"] for fact in facts if fact.get("out") == name and "task" in fact), name)
        if last["fact"] == "started" and last in current:
            share = read_fraction(out / f"{name}.progress")
            yield f"  {'running' if working else 'interrupted'}: {task}, {share:.0%}"
        elif last["fact"] == "abandoned":
            yield f"  failed {last['attempts']} times: {task}; log: {out / last['log']}"
        elif last["fact"] in ("failed", "damaged", "collapsed"):
            yield f"  {last['fact']}: {task}; {last.get('why') or out / last['log']}"


def _last(facts: Sequence[Fact]) -> dict[str, Fact]:
    """The last fact about each output."""
    return {fact["out"]: fact for fact in facts if fact["fact"] in ("started", *ENDS)}


def _time_left(out: Path, plans: Sequence[Fact], facts: Sequence[Fact]) -> str:
    """Estimate the time left from the duration of finished steps.

    The estimate assumes that as many steps run at a time as run now, or one if none runs.
    """
    finished = [fact for fact in facts if fact["fact"] == "finished" and fact.get("kind")]
    took = {kind: [fact["measured"]["seconds"] for fact in finished if fact["kind"] == kind] for kind in _KINDS}
    if not took[EVALUATION] or not took[TRAINING]:
        return "time left is known after the first training and its evaluation"
    mean = {kind: sum(seconds) / max(len(seconds), 1) for kind, seconds in took.items()}
    costs = Costs(*(mean[kind] for kind in _KINDS))
    snapshots = {
        True: len(took[COMPARISON]) / len(took[TRAINING]),
        False: max(1.0, (len(took[EVALUATION]) - len(plans)) / len(took[TRAINING])),
    }
    running = [name for name, last in _last(facts).items() if last["fact"] == "started"]
    rounds = [Workload(**announced) for plan in plans for announced in plan["rounds"]]
    total = len(plans) * costs.evaluation + sum(
        costs.refset + this.cost(costs, snapshots[this.finalists is not None]) for this in rounds
    )
    elapsed = sum(map(sum, took.values())) + sum(
        read_fraction(out / f"{name}.progress") * mean.get(_kind(facts, name), 0.0) for name in running
    )
    seconds = max(total - elapsed, 0.0) / max(len(running), 1)
    return f"about {_duration(seconds)} left"


_KINDS = (REFSET, TRAINING, EVALUATION, COMPARISON)


def _kind(facts: Sequence[Fact], name: str) -> str:
    return str(next((fact["kind"] for fact in facts if fact.get("out") == name and "kind" in fact), ""))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
