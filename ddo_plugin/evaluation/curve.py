"""FID and Inception Score over guidance scales (Figure 6 of the paper). One command measures each scale."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_write, write_json
from ddo_plugin.base.reading import parsing, read_bytes
from ddo_plugin.jobs.executor import LocalExecutor, StepFailedError
from ddo_plugin.jobs.runner import Runner, Task, key
from ddo_plugin.jobs.supervise import open_runner, supervise

SCALE, OUT = "{scale}", "{out}"
RESULT, PICTURE = "curve.json", "curve.png"
_SHELL = re.compile(r"[\s;|&<>()$`'\"]")  # a word with such a character is a script, not an argument


@dataclass(frozen=True)
class Point:
    """The metrics of one guidance scale."""

    scale: float
    fid: float
    inception_score: float
    file: str  # the result of `ddo eval`, relative to the curve's folder


def run(
    template: Sequence[str], scales: Sequence[float], out: Path, jobs: int = 1
) -> tuple[list[Point], list[StepFailedError]]:
    """Measure each scale that has no result yet, write curve.json, and return its points and the failures."""
    for needed in (SCALE, OUT):
        if not any(needed in part for part in template):
            raise UserError(
                f"the command lacks {needed}; add it, because every scale would otherwise run the same command"
            )
    _check_shell(template, out)
    with open_runner(out, LocalExecutor(slots=jobs), key({"command": list(template)})) as runner:
        root = runner.root
        tasks = [_task(root, template, scale) for scale in scales]
        ends = supervise(runner, len(tasks), [partial(_attempt, runner, task) for task in tasks])
        results = zip(tasks, scales, ends, strict=True)
        points = [read_point(root, task.out, scale) for task, scale, failure in results if failure is None]
        if points:
            write_json(root / RESULT, {"command": list(template), "points": [vars(point) for point in points]})
    return points, [failure for failure in ends if failure is not None]


def _attempt(runner: Runner, task: Task) -> StepFailedError | None:
    """Return the failure of a task instead of raising it, so that the other tasks continue."""
    try:
        runner.run(task)
    except StepFailedError as failure:
        return failure
    return None


def _task(root: Path, template: Sequence[str], scale: float) -> Task:
    """Return the task of a scale. Its file name depends on the command, so that another command measures again."""
    number = f"{scale:g}" if float(f"{scale:g}") == scale else repr(scale)
    name = f"scale-{number}"
    out = root / f"{name}-{key({'command': list(template), 'scale': scale})}.json"
    argv = [part.replace(SCALE, number).replace(OUT, str(out)) for part in template]
    return Task(name, out, Command(argv))


def _check_shell(template: Sequence[str], out: Path) -> None:
    """Refuse a folder whose name a shell would read as more than a name, if the command has a script for a shell."""
    place = str(out.resolve())
    scripts = [part for part in template if OUT in part and _SHELL.search(part)]
    if scripts and shlex.quote(place) != place:
        raise UserError(
            f"--out={out}: the command is a script for a shell, which would misread {place!r}; choose a folder without "
            "blanks and special characters"
        )


def read_point(root: Path, file: Path, scale: float) -> Point:
    """Read a point from the JSON file that `ddo eval --metrics=fid,is` wrote."""
    remedy = f"let the command end with `ddo eval ... --metrics=fid,is --out={OUT}`, and delete the file to repeat it"
    with parsing(f"{file} holds no finite metrics fid and is", remedy):
        metrics = json.loads(read_bytes(file))["metrics"]
        return _point(scale, metrics["fid"], metrics["is"], file.relative_to(root).as_posix())


def read_curve(folder: Path) -> list[Point]:
    """Read the points of a finished curve."""
    with parsing(f"{folder} holds no finished curve", f"create it with `ddo curve --out={folder}`"):
        return [_point(**point) for point in json.loads(read_bytes(folder / RESULT))["points"]]


def _point(scale: Any, fid: Any, inception_score: Any, file: str) -> Point:
    point = Point(float(scale), float(fid), float(inception_score), file)
    if not math.isfinite(point.scale + point.fid + point.inception_score):
        raise ValueError("a number is not finite")
    return point


def table(points: Sequence[Point]) -> str:
    """Return the points as a Markdown table with the lowest FID in bold."""
    best = min((point.fid for point in points if not math.isnan(point.fid)), default=None)
    rows = [
        f"| {point.scale:g} | {f'**{point.fid:.3f}**' if point.fid == best else f'{point.fid:.3f}'} | "
        f"{point.inception_score:.2f} |"
        for point in points
    ]
    return "\n".join(["| guidance | FID | IS |", "|---|---|---|", *rows])


def draw(curves: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Write a PNG of FID over Inception Score: a line for each curve, each point labelled with its guidance scale."""
    import matplotlib

    from ddo_plugin.base.plots import COLORS, STYLE, canvas, png

    with matplotlib.rc_context(STYLE):
        figure, (axes,) = canvas(1, width=5.0, height=3.6)
        colors = [COLORS["ddo"], COLORS["mle"], COLORS["real"], COLORS["fake"]]
        for number, (name, points) in enumerate(curves.items()):
            color = colors[number % len(colors)]
            scores, distances = [point.inception_score for point in points], [point.fid for point in points]
            axes.plot(scores, distances, color=color, label=name, marker="o", markersize=4, linewidth=1.4)
            for point in points:
                place = (point.inception_score, point.fid)
                axes.annotate(f"{point.scale:g}", place, (4, 4), textcoords="offset points", fontsize=7, color=color)
        axes.set(title="guidance scales", xlabel="Inception Score", ylabel="FID")
        if len(curves) > 1:
            axes.legend()
        picture = png(figure)
    with atomic_write(path) as file:
        file.write(picture)
