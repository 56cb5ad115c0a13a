"""The report of a self-play run, from its journal and what lies beside it; also while it runs."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.jobs.journal import FILE_NAME, read
from ddo_plugin.selfplay.recipe.plan import Candidate
from ddo_plugin.selfplay.report import figures, history, page
from ddo_plugin.selfplay.report.history import History, Point
from ddo_plugin.selfplay.status import now
from ddo_plugin.snapshots import sidecar

REPORT = "report.html"
SHOWN_GRIDS = 4


def write(out: Path, command: str) -> Path:
    """Write report.html beside the journal."""
    histories = history.load(out)
    if not (out / FILE_NAME).exists():
        raise UserError(f"{out}: no run has begun here; give its folder")
    if not histories:
        raise UserError(f"{out}: nothing has been judged yet; `ddo selfplay --status` says what runs")
    facts = read(out / FILE_NAME)
    path = out / REPORT
    page.write(
        path,
        title=f"Self-play: {', '.join(histories)}",
        lead="Each round finetunes its reference against samples of its own, and the best snapshot is the next.",
        table=_rounds(out, histories),
        sections=[_now(out), *(section for one in histories.values() for section in _sections(out, one, facts))],
        command=command,
        versions=f"ddo-plugin {version('ddo-plugin')}, torch {version('torch')}, Python {platform.python_version()}",
    )
    return path


def _rounds(out: Path, histories: Mapping[str, History]) -> page.Table:
    rows = []
    for name, one in histories.items():
        for point in one.points:
            where = "base" if point.round == 0 else f"round {point.round}"
            first = f"{name}, {where}" if len(histories) > 1 else where
            rows.append([first, *_tried(point), _scored(point), _relative(out, point.network)])
    head = ("", "objective", "α", "β", "score", "network")
    return page.Table(head, rows, best=4, note="The selected network of each round. A lower score is better.")


def _tried(point: Point) -> Sequence[str]:
    if point.candidate is None:
        return ("", "", "")
    return (point.candidate["objective"], f"{point.candidate['alpha']:g}", f"{point.candidate['beta']:g}")


def _scored(point: Point) -> str:
    return f"{point.score:.4g} ± {point.spread:.2g}" if point.spread else f"{point.score:.4g}"


def _now(out: Path) -> page.Section:
    return page.Section("Where the run is", [line.strip() for line in now(out)])


def _sections(out: Path, one: History, facts: Sequence[Mapping[str, Any]]) -> list[page.Section]:
    return [
        _scores(one),
        *_training(one),
        *_samples(one),
        _provenance(out, one),
        *_troubles(one, facts),
    ]


def _scores(one: History) -> page.Section:
    shown = [
        page.Figure(
            figures.scores(one), "Every judged snapshot; the line joins those that were selected. Bars: spread."
        )
    ]
    if best := _best(one.compared):
        caption = (
            "The search: the best score of each α and β in cheap evaluations, which compare with one another alone. "
            "Cells without colour were stopped early: theirs are scores of earlier snapshots."
        )
        shown.append(page.Figure(figures.sweep(best, one.dropped), caption))
    elif best := _best(one.judged):
        caption = "The sweep: the best score of each α and β in each round; a dash marks what has none."
        shown.append(page.Figure(figures.sweep(best), caption))
    return page.Section("Score by round", [one.name], shown)


def _best(points: Sequence[Point]) -> dict[int, dict[tuple[float, float], float]]:
    """For each round the best score of each α and β."""
    best: dict[int, dict[tuple[float, float], float]] = {}
    for point in points:
        if point.candidate is not None:
            setting = (point.candidate["alpha"], point.candidate["beta"])
            grid = best.setdefault(point.round, {})
            grid[setting] = min(grid.get(setting, float("inf")), point.rank)
    return dict(sorted(best.items()))


def _training(one: History) -> list[page.Section]:
    if not any(point.steps() for point in one.points):
        return []
    rewards = page.Figure(
        figures.training(one),
        "The trainings of the selected networks, one after the other. r is the log-ratio of target and reference, an "
        "accuracy the share of samples whose r has the right sign.",
    )
    likelihood = page.Figure(
        figures.drift(one), "What DDO costs in likelihood of the real data: each round begins at its reference."
    )
    return [page.Section("Rewards", [], [rewards]), page.Section("Likelihood drift", [], [likelihood])]


def _samples(one: History) -> list[page.Section]:
    points = one.points if len(one.points) <= SHOWN_GRIDS else [one.points[0], *one.points[1 - SHOWN_GRIDS :]]
    grids = {
        f"round {point.round}" if point.round else "base": images
        for point in points
        if (images := point.images()) is not None
    }
    if not grids:
        return []
    return [page.Section("Samples", [], [page.Figure(figures.grids(grids), "The same seeds for every network.")])]


def _provenance(out: Path, one: History) -> page.Section:
    """From the winner back to what the first round started from."""
    texts = []
    for point in reversed(one.points[: one.points.index(one.best) + 1]):
        sha256 = sidecar.sha256(point.network)
        made = f" by {Candidate(**point.candidate)} from the network below" if point.candidate else ""
        told = f", sha256 {sha256}" if sha256 else ""
        where = f"round {point.round}" if point.round else "base"
        texts.append(f"{where}: {_relative(out, point.network)}{told}: score {_scored(point)}{made}")
    return page.Section("Where the winner came from", texts)


def _troubles(one: History, facts: Sequence[Mapping[str, Any]]) -> list[page.Section]:
    told = [one.ended] if one.ended else []
    for fact in facts:
        if fact["fact"] == "collapsed" and fact["plan"] == one.name:
            tried = f" of {Candidate(**fact['candidate'])}" if fact.get("candidate") else ""
            told.append(f"round {fact['round']}: the training{tried} collapsed: {fact['why']}")
        elif fact["fact"] in ("failed", "damaged") and fact["out"].startswith(f"{one.name}/"):
            told.append(f"{fact.get('task', fact['out'])} {fact['fact']}: {fact.get('why') or fact['log']}")
    return [page.Section("What went wrong", warnings=told)] if told else []


def _relative(out: Path, path: Path) -> str:
    return path.relative_to(out).as_posix() if path.is_relative_to(out) else str(path)
