"""The figures of a report, as SVG text or PNG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ddo_plugin.base.plots import COLORS, FAINT, INK, LABELS, STYLE, canvas, png, svg
from ddo_plugin.selfplay.report.history import History

matplotlib.use("svg")

SMOOTHING = 0.9
GREY: Mapping[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255, "interpolation": "nearest"}


def overview(families: Mapping[str, Mapping[str, History]], grids: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """Return a PNG for a README: for each family, the distances and samples of base, control and DDO."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 1.9 * len(families)), layout="constrained")
        rows = figure.subplots(len(families), 4, squeeze=False, width_ratios=[1.5, 1, 1, 1])
        for (family, arms), row in zip(families.items(), rows, strict=True):
            bars = {"base": arms["ddo"].base, "control": arms["mle"].best, "DDO": arms["ddo"].best}
            row[0].bar(
                list(bars),
                [point.score for point in bars.values()],
                yerr=[point.spread for point in bars.values()],
                color=[FAINT, COLORS["mle"], COLORS["ddo"]],
                ecolor=INK,
                capsize=3,
            )
            row[0].set_title(f"{family}: Fréchet distance")
            row[0].grid(axis="x", visible=False)
            for axes, name in zip(row[1:], bars, strict=True):
                _show_grid(axes, f"samples: {name}", grids[family][name], 10)
        return png(figure)


def rounds(arms: Mapping[str, History]) -> str:
    """Draw the score of each round with its spread over sampling seeds, and the likelihood of the real data."""
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas(2)
        for arm, history in arms.items():
            numbers = [point.round for point in history.points]
            style: dict[str, Any] = {
                "color": COLORS.get(arm),
                "label": LABELS.get(arm, arm),
                "marker": "o",
                "markersize": 4,
            }
            scores, spreads = [p.score for p in history.points], [p.spread for p in history.points]
            left.errorbar(numbers, scores, yerr=spreads, capsize=3, **style)
            likelihoods = [p.evaluation["logp_real"] for p in history.points if "logp_real" in p.evaluation]
            if len(likelihoods) == len(numbers):
                right.plot(numbers, likelihoods, **style)
        left.set(title="Fréchet distance", xlabel="round", ylim=(0, None))
        right.set(title="mean log-likelihood of the real data", xlabel="round")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.legend()
        return svg(figure)


def scores(history: History) -> str:
    """Draw the score of every evaluated network by round, and join the selected networks by a line."""
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = canvas(1)
        evaluated, selected = history.evaluated, history.points
        axes.scatter([p.round for p in evaluated], [p.score for p in evaluated], s=10, color=FAINT, label="evaluated")
        axes.errorbar(
            [p.round for p in selected],
            [p.score for p in selected],
            yerr=[p.spread for p in selected],
            capsize=3,
            color=COLORS["ddo"],
            marker="o",
            markersize=4,
            label="selected",
        )
        axes.set(xlabel="round", ylabel="score", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        return svg(figure)


def sweep(
    best: Mapping[int, Mapping[tuple[float, float], float]], dropped: Collection[tuple[int, float, float]] = ()
) -> str:
    """Draw the best score of each (α, β) by round. Pairs in `dropped` get no colour."""
    return _heat_maps(best, "β", "α", {(number, (alpha, beta)) for number, alpha, beta in dropped})


def merges(best: Mapping[int, Mapping[tuple[float, float], float]]) -> str:
    """Draw the best score of each (α, w) by round."""
    return _heat_maps(best, "w", "α", set())


def _heat_maps(
    scores: Mapping[int, Mapping[tuple[float, float], float]],
    xlabel: str,
    ylabel: str,
    colourless: Collection[tuple[int, tuple[float, float]]],
) -> str:
    """Draw the score of each (row, column) by round, all on one colour scale."""
    through = {
        number: {at: s for at, s in grid.items() if (number, at) not in colourless} for number, grid in scores.items()
    }
    finite = [score for grid in through.values() for score in grid.values() if np.isfinite(score)]
    with matplotlib.rc_context(STYLE):
        figure, maps = canvas(len(scores), width=max(9.0, 2.2 * len(scores)), height=2.6)
        for axes, (number, grid) in zip(maps, scores.items(), strict=True):
            rows, columns = sorted({row for row, _ in grid}), sorted({column for _, column in grid})
            cells = np.array([[grid.get((row, column), np.nan) for column in columns] for row in rows])
            coloured = np.array([[through[number].get((row, column), np.nan) for column in columns] for row in rows])
            axes.imshow(coloured, "viridis_r", aspect="auto", vmin=min(finite, default=0), vmax=max(finite, default=1))
            for (i, j), score in np.ndenumerate(cells):
                dark = np.isfinite(coloured[i, j]) and score > (min(finite) + max(finite)) / 2
                ink = "white" if dark else "black" if np.isfinite(coloured[i, j]) else INK
                label = f"{score:.3g}" if np.isfinite(score) else "–"
                axes.text(j, i, label, ha="center", va="center", fontsize=8, color=ink)
            axes.set(title=f"round {number}", xlabel=xlabel, ylabel=ylabel)
            axes.set_xticks(range(len(columns)), [f"{column:g}" for column in columns])
            axes.set_yticks(range(len(rows)), [f"{row:g}" for row in rows])
            axes.grid(visible=False)
        return svg(figure)


def drift(history: History) -> str:
    """Draw log p of real data by target and reference, over the training steps of the selected networks."""
    steps = [row for point in history.points for row in point.steps()]
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas(2)
        _curve(left, steps, "logps/real", COLORS["ddo"], "target")
        if any("logps/real_ref" in row for row in steps):
            _curve(left, steps, "logps/real_ref", FAINT, "reference")
        measured = [point for point in history.points if "logp_real" in point.evaluation]
        numbers, likelihoods = [p.round for p in measured], [p.evaluation["logp_real"] for p in measured]
        right.plot(numbers, likelihoods, color=COLORS["ddo"], marker="o", markersize=4)
        left.set(title="log p of real data, in training", xlabel="step")
        right.set(title="log p of all real data, selected networks", xlabel="round")
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.legend()
        return svg(figure)


def training(history: History) -> str:
    """Draw rewards and accuracies over the training steps of all rounds, one after the other."""
    steps = [row for point in history.points for row in point.steps()]
    ends = np.cumsum([len(point.steps()) for point in history.points[1:]])  # the base has no training steps
    with matplotlib.rc_context(STYLE):
        figure, (left, middle, right) = canvas(3)
        for kind in ("real", "fake"):
            _curve(left, steps, f"rewards/{kind}", COLORS[kind], kind)
            _curve(middle, steps, f"accuracies/{kind}", COLORS[kind], kind)
        _curve(right, steps, "rewards/margin", COLORS["ddo"], "margin")
        left.set(title="reward β·r", xlabel="step")
        middle.set(title="implicit discriminator: accuracy", xlabel="step", ylim=(0, 1))
        right.set(title="reward margin, real − fake", xlabel="step")
        for axes in (left, middle, right):
            for end in ends[:-1]:
                axes.axvline(end, color=FAINT, linewidth=0.8, linestyle=":")
        left.legend()
        return svg(figure)


def _curve(axes: Axes, steps: Sequence[Mapping[str, float]], name: str, color: str, label: str) -> None:
    """Draw raw values in a faint colour, and their moving average on top."""
    values = np.array([row[name] for row in steps if name in row])
    smooth, level = np.empty_like(values), 0.0
    for i, value in enumerate(values):
        level = value if i == 0 else SMOOTHING * level + (1 - SMOOTHING) * value
        smooth[i] = level
    axes.plot(values, color=color, alpha=0.2, linewidth=0.6)
    axes.plot(smooth, color=color, label=label, linewidth=1.4)


def grids(images: Mapping[str, np.ndarray], columns: int = 10) -> str:
    """Draw grids of images side by side."""
    with matplotlib.rc_context(STYLE):
        figure, row = canvas(len(images), height=1.6)
        for axes, (title, batch) in zip(row, images.items(), strict=True):
            _show_grid(axes, title, batch, columns)
        return svg(figure)


def _show_grid(axes: Axes, title: str, images: np.ndarray, columns: int) -> None:
    picture = np.concatenate([tile(images[:, [channel]], columns)[..., None] for channel in range(images.shape[1])], 2)
    axes.imshow(picture.squeeze(-1) if picture.shape[-1] == 1 else picture[..., :3], **GREY)
    axes.set_title(title)
    axes.axis("off")


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Return the images, uint8 [N, 1, H, W], as one picture with this number of columns and a line between images."""
    columns = min(columns, len(images))
    padded = np.pad(images[:, 0], ((0, 0), (0, 1), (0, 1)), constant_values=128)
    rows = len(padded) // columns
    height, width = padded.shape[1:]
    return padded[: rows * columns].reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, -1)


def clouds(points: Mapping[str, np.ndarray], extent: float = 1.3, bins: int = 120) -> str:
    """Draw the densities of point clouds in the plane, all on one colour scale."""
    edges = np.linspace(-extent, extent, bins)
    histograms = {
        title: np.histogram2d(cloud[:, 0], cloud[:, 1], bins=[edges, edges])[0].T for title, cloud in points.items()
    }
    top = np.quantile(np.concatenate([h.ravel() for h in histograms.values()]), 0.995)
    with matplotlib.rc_context(STYLE):
        figure, row = canvas(len(points), height=2.6)
        for axes, (title, histogram) in zip(row, histograms.items(), strict=True):
            axes.imshow(histogram, cmap="magma", vmax=top, origin="lower", interpolation="nearest")
            axes.set_title(title)
            axes.axis("off")
        return svg(figure)
