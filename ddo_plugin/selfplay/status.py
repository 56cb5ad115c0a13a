"""The status of a run, from its journal and its progress files, also while another process works on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ddo_plugin.base.progress import read_fraction
from ddo_plugin.jobs.folder_lock import is_held
from ddo_plugin.jobs.journal import FILE_NAME, Fact, current, read
from ddo_plugin.selfplay import judged
from ddo_plugin.selfplay.recipe.plan import Candidate, Costs, Workload
from ddo_plugin.selfplay.steps import COMPARISON, EVALUATION, JUDGEMENT, REFSET, TRAINING
from ddo_plugin.selfplay.variants import snapshot_of

ENDS = ("finished", "failed", "abandoned", "collapsed", "damaged")


def lines(out: Path) -> Iterator[str]:
    """Return the rounds of the run in a folder, and what it does now."""
    facts = current(read(out / FILE_NAME))
    for plan in _plans(facts):
        yield from _plan(plan, facts)
    for line in judged.table(judged.of(out)):
        yield f"  {line}"
    yield from now(out)


def now(out: Path) -> Iterator[str]:
    """Return the steps that run, the steps that failed, and the time left."""
    facts, working = read(out / FILE_NAME), is_held(out)
    own = current(facts)
    plans = _plans(own)
    yield from _steps(out, facts, own, working)
    if not plans:
        yield f"{out}: the run has not started"
    elif {fact["plan"] for fact in own if fact["fact"] == "winner"} >= {plan["plan"] for plan in plans}:
        yield "finished"
    elif working:
        yield f"running; {_time_left(out, plans, facts)}"
    else:
        yield "not running; run the same command again to resume"


def _plans(facts: Sequence[Fact]) -> Sequence[Fact]:
    return [fact for fact in facts if fact["fact"] == "plan"]


def _plan(plan: Fact, facts: Sequence[Fact]) -> Iterator[str]:
    mine = [fact for fact in facts if fact.get("plan") == plan["plan"]]
    evaluated = [fact for fact in mine if fact["fact"] == "evaluated"]
    count = len(plan["rounds"])
    yield f"{plan['plan']} ({plan['upstream']}), {count} round{'s' * (count > 1)}"
    for number, announced in enumerate([None, *plan["rounds"]]):
        in_round = [fact for fact in evaluated if fact["round"] == number]
        selected = [fact["network"] for fact in mine if fact["fact"] == "selected" and fact["round"] == number]
        chosen = [fact for fact in in_round if not number or fact["network"] in selected[-1:]]
        if chosen:
            yield f"  {f'round {number}' if number else 'base':8}  {_network(chosen[-1])}"
        elif announced and any(fact["round"] == number - 1 for fact in evaluated):
            yield f"  round {number:<2}  {_so_far(mine, number, announced)}"
            break
    if evaluated:
        yield f"  best      {_network(min(evaluated, key=_score))}"


def _so_far(facts: Sequence[Fact], number: int, announced: Fact) -> str:
    """Return how far an unfinished round is: what a search has compared, or what a grid has evaluated."""
    names = ("evaluated", "compared", "dropped")
    in_round = {name: [fact for fact in facts if fact["fact"] == name and fact["round"] == number] for name in names}
    verb = "compared" if in_round["compared"] else "evaluated"
    candidates = len({str(fact["candidate"]) for fact in in_round[verb]})
    stopped = f", {len(in_round['dropped'])} stopped" if in_round["dropped"] else ""
    return f"{candidates} of {announced['candidates']} candidates {verb}, {len(in_round[verb])} snapshots{stopped}"


def _network(evaluated: Fact) -> str:
    candidate = f"  {evaluated['candidate'].fill(Candidate)}" if evaluated["candidate"] else ""
    candidate += f" w={evaluated['w']:g}" if "w" in evaluated else ""
    return f"{evaluated['score']:.4g}{candidate}  {evaluated['network']}"


def _score(evaluated: Fact) -> float:
    return math.inf if math.isnan(evaluated["score"]) else float(evaluated["score"])


def _steps(out: Path, facts: Sequence[Fact], own: Sequence[Fact], working: bool) -> Iterator[str]:
    """Return the steps that run, and all steps that failed. Steps that an earlier run started are left out."""
    for name, last in _last(facts).items():
        task = next((fact["task"] for fact in facts if fact.get("out") == name and "task" in fact), name)
        if last["fact"] == "started" and last in own:
            share = read_fraction(out / f"{name}.progress")
            yield f"  {'running' if working else 'interrupted'}: {task}, {share:.0%}"
        elif last["fact"] == "abandoned":
            yield f"  failed {last['attempts']} time{'s' * (last['attempts'] != 1)}: {task}; log: {out / last['log']}"
        elif last["fact"] in ("failed", "damaged", "collapsed"):
            yield f"  {last['fact']}: {task}; {last.get('why') or out / last['log']}"


def _last(facts: Sequence[Fact]) -> dict[str, Fact]:
    """Return the last fact about each output."""
    return {fact["out"]: fact for fact in facts if fact["fact"] in ("started", *ENDS)}


def _time_left(out: Path, plans: Sequence[Fact], facts: Sequence[Fact]) -> str:
    """Estimate the time left from the duration of finished steps.

    The estimate assumes that as many steps run at a time as run now, or one if none runs.
    """
    finished = [fact for fact in facts if fact["fact"] == "finished" and fact.get("kind")]
    kinds = (*_KINDS, JUDGEMENT)
    took = {kind: [fact["measured"]["seconds"] for fact in finished if fact["kind"] == kind] for kind in kinds}
    if not took[EVALUATION] or not took[TRAINING]:
        return "the time left is unknown until the first training is evaluated"
    mean = {kind: sum(seconds) / max(len(seconds), 1) for kind, seconds in took.items()}
    mean[JUDGEMENT] = mean[JUDGEMENT] or mean[EVALUATION]
    costs = Costs(*(mean[kind] for kind in _KINDS))
    evaluated = {snapshot_of(Path(f["network"])) for f in facts if f["fact"] == "evaluated" and f["round"]}
    snapshots = {
        True: len(took[COMPARISON]) / len(took[TRAINING]),
        False: max(1.0, len(evaluated) / len(took[TRAINING])),
    }
    running = [name for name, last in _last(facts).items() if last["fact"] == "started"]
    rounds = [announced.fill(Workload) for plan in plans for announced in plan["rounds"]]
    total = len(plans) * costs.evaluation + sum(
        costs.refset + work.cost(costs, snapshots[work.finalists is not None]) for work in rounds
    )
    total += sum(plan.get("judgements", 0) for plan in plans) * mean[JUDGEMENT]
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
