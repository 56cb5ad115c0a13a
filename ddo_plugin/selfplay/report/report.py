"""The report of a self-play run, from its journal and the files beside it, also while it runs."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.jobs.journal import FILE_NAME, read
from ddo_plugin.selfplay import evaluation_file, judged
from ddo_plugin.selfplay.recipe.plan import Candidate, shown
from ddo_plugin.selfplay.report import figures, history, page
from ddo_plugin.selfplay.report.history import Cell, History, Point
from ddo_plugin.selfplay.status import now
from ddo_plugin.snapshots import sidecar

REPORT = "report.html"
SHOWN_GRIDS = 4


def write(out: Path, command: str) -> Path:
    """Write report.html beside the journal and return its path. `command` is the command line to show."""
    histories = history.load(out)
    if not (out / FILE_NAME).exists():
        raise UserError(f"{out}: no self-play run in this folder; pass the folder of a run")
    if not histories:
        raise UserError(f"{out}: no network is evaluated yet; `ddo selfplay --status` says what runs")
    facts = read(out / FILE_NAME)
    path = out / REPORT
    page.write(
        path,
        title=f"Self-play: {', '.join(histories)}",
        lead="Each round finetunes its reference. The best network of a round becomes the next reference.",
        table=_rounds(out, histories),
        sections=[
            *_judged(out),
            _now(out),
            *(section for plan in histories.values() for section in _sections(out, plan, facts)),
        ],
        command=command,
        versions=f"ddo-plugin {version('ddo-plugin')}, torch {version('torch')}, Python {platform.python_version()}",
    )
    return path


def _rounds(out: Path, histories: Mapping[str, History]) -> page.Table:
    rows = []
    for name, plan in histories.items():
        for point in plan.points:
            where = "base" if point.round == 0 else f"round {point.round}"
            first = f"{name}, {where}" if len(histories) > 1 else where
            rows.append([first, *_setting(point), _score(point), _relative(out, point.network)])
    head = ("", "objective", "α", "β", "score", "network")
    return page.Table(head, rows, "The selected network of each round. A lower score is better.", best=4)


def _setting(point: Point) -> Sequence[str]:
    if point.candidate is None:
        return ("", "", "")
    return (point.candidate["objective"], f"{point.candidate['alpha']:g}", shown(point.candidate["beta"]))


def _score(point: Point) -> str:
    return evaluation_file.shown(point.score, point.spread)


def _judged(out: Path) -> list[page.Section]:
    """Return the numbers that can be published, if the run has come so far."""
    networks = judged.of(out)
    if not networks:
        return []
    head, *rows = judged.rows(networks)
    note = (
        "Publish “fresh seeds”: the mean and the standard deviation of the score over sampling seeds that selected no "
        "network. “selection” is the score over the seeds that selected the winner. For the winner it is too good, "
        "because it is the best of many."
    )
    return [page.Section("Numbers to publish", table=page.Table(head, rows, note, best=1))]


def _now(out: Path) -> page.Section:
    return page.Section("Where the run is", [line.strip() for line in now(out)])


def _sections(out: Path, plan: History, facts: Sequence[Mapping[str, Any]]) -> list[page.Section]:
    return [
        _scores(plan),
        *_training(plan),
        *_samples(plan),
        _provenance(out, plan),
        *_problems(plan, facts),
    ]


def _scores(plan: History) -> page.Section:
    shown = [
        page.Figure(
            figures.scores(plan), "Every evaluated snapshot. The line joins the selected ones; bars show the spread."
        )
    ]
    if best := _best(plan.compared):
        caption = (
            "The search: the best score of each α and β in the cheaper evaluations, which cannot be compared with full "
            "ones. Cells without colour were stopped early and show the score of an earlier snapshot."
        )
        shown.append(page.Figure(figures.sweep(best, plan.dropped), caption))
    elif best := _best(plan.evaluated):
        caption = "The sweep: the best score of each α and β in each round. A dash marks pairs without a score."
        shown.append(page.Figure(figures.sweep(best), caption))
    if any(point.w != 1 for point in plan.evaluated):
        caption = (
            "Merged networks: the best score of each α and w in each round. w = 0 is the reference, w = 1 a snapshot; "
            "larger values extrapolate beyond it, negative ones away from it."
        )
        shown.append(page.Figure(figures.merges(_best(plan.evaluated, by_w=True)), caption))
    return page.Section("Score by round", [plan.name], shown)


def _best(points: Sequence[Point], by_w: bool = False) -> dict[int, dict[Cell, float]]:
    """Return the best score of each α and β, or of each α and w, by round."""
    best: dict[int, dict[Cell, float]] = {}
    for point in points:
        if point.candidate is not None:
            setting = (point.candidate["alpha"], point.w if by_w else point.candidate["beta"])
            grid = best.setdefault(point.round, {})
            grid[setting] = min(grid.get(setting, float("inf")), point.rank)
    return dict(sorted(best.items()))


def _training(plan: History) -> list[page.Section]:
    """Return the sections for which the trainings logged numbers: without DDO there are no rewards."""
    logged = {name for point in plan.points for row in point.steps() for name in row}
    sections = []
    if "rewards/real" in logged:
        caption = (
            "The trainings of the selected networks, one after the other. r is the log-ratio of target and reference. "
            "The accuracy is the share of samples for which r has the right sign."
        )
        sections.append(page.Section("Rewards", [], [page.Figure(figures.training(plan), caption)]))
    if "logps/real" in logged:
        caption = "The likelihood of the real data, which DDO lowers. Each round begins at its reference."
        sections.append(page.Section("Likelihood drift", [], [page.Figure(figures.drift(plan), caption)]))
    return sections


def _samples(plan: History) -> list[page.Section]:
    points = plan.points if len(plan.points) <= SHOWN_GRIDS else [plan.points[0], *plan.points[1 - SHOWN_GRIDS :]]
    grids = {
        f"round {point.round}" if point.round else "base": images
        for point in points
        if (images := point.images()) is not None
    }
    if not grids:
        return []
    return [page.Section("Samples", [], [page.Figure(figures.grids(grids), "The same seeds for every network.")])]


def _provenance(out: Path, plan: History) -> page.Section:
    """Trace the winner back to the network that the first round started from."""
    texts = []
    for point in reversed(plan.points[: plan.points.index(plan.best) + 1]):
        sha256 = sidecar.sha256(point.network)
        made_by = f" by {Candidate(**point.candidate)} from the network below" if point.candidate else ""
        made_by += f", merged with it at w={point.w:g}" if point.w != 1 else ""
        digest = f", sha256 {sha256}" if sha256 else ""
        where = f"round {point.round}" if point.round else "base"
        texts.append(f"{where}: {_relative(out, point.network)}{digest}: score {_score(point)}{made_by}")
    return page.Section("Where the winner came from", texts)


def _problems(plan: History, facts: Sequence[Mapping[str, Any]]) -> list[page.Section]:
    problems = [plan.ended] if plan.ended else []
    for fact in facts:
        if fact["fact"] == "collapsed" and fact["plan"] == plan.name:
            candidate = f" of {fact['candidate'].fill(Candidate)}" if fact.get("candidate") else ""
            problems.append(f"round {fact['round']}: the training{candidate} collapsed: {fact['why']}")
        elif fact["fact"] in ("failed", "damaged") and fact["out"].startswith(f"{plan.name}/"):
            problems.append(f"{fact.get('task', fact['out'])} {fact['fact']}: {fact.get('why') or fact['log']}")
    return [page.Section("What went wrong", warnings=problems)] if problems else []


def _relative(out: Path, path: Path) -> str:
    return path.relative_to(out).as_posix() if path.is_relative_to(out) else str(path)
