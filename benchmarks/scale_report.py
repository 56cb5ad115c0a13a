"""Tables and a figure of the results of `benchmarks.scale`: `python -m benchmarks.scale_report RESULTS`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu.report import table
from benchmarks.scale import GRIDS, RANKS

Rows = Sequence[Mapping[str, Any]]
TITLES = {"edm": "EDM", "edm2": "EDM2", "var": "VAR"}
COLORS = {"edm": "#d9480f", "edm2": "#4c6ef5", "var": "#2b8a3e"}
AXES = {"batch": "real images of a step", "size": "parameters", "ranks": "ranks, on two cores"}


def along(rows: Rows, upstream: str, axis: str) -> Rows:
    """Return the points of one upstream along one axis."""
    return [row for row in rows if row["upstream"] == upstream and row["axis"] == axis]


def position(row: Mapping[str, Any]) -> int:
    """Return where a point lies on its axis."""
    return int(row["parameters"] if row["axis"] == "size" else row["value"])


def steps(rows: Rows, axis: str) -> Iterator[tuple[object, ...]]:
    """Return a row for each point of an axis."""
    for upstream, title in TITLES.items():
        for row in along(rows, upstream, axis):
            cpu = row["cpu ms"]
            parts = sum(cpu.values()) - cpu["ddo"]
            millions = f"{row['parameters'] / 1e6:.2f} M"
            yield title, millions, row["batch"], f"{cpu['ddo']:.0f} ms", f"{parts:.0f} ms", f"{row['ratio']:.2f}"


def ranks(rows: Rows) -> Iterator[tuple[object, ...]]:
    """Return a row for each number of ranks."""
    for upstream, title in TITLES.items():
        for row in along(rows, upstream, "ranks"):
            cpu, sent = row["cpu ms"], row["bytes"]
            own = sent.get("statistics", {}).get("other", 0)
            yield (
                *(title, row["value"], f"{cpu['ddo']:.0f} ms", f"{row['ratio']:.2f}"),
                *(f"{sum(sent['ddo'].values()):,}", f"{sum(sent['mle'].values()):,}", own),
            )


def figure(rows: Rows) -> str:
    """Return the ratios along all axes as SVG."""
    import matplotlib as mpl

    from ddo_plugin.base import plots

    with mpl.rc_context(plots.STYLE):
        drawn, panels = plots.canvas(len(AXES), height=2.6)
        for panel, (axis, label) in zip(panels, AXES.items(), strict=True):
            for upstream, title in TITLES.items():
                points = along(rows, upstream, axis)
                ratios = [row["ratio"] for row in points]
                panel.plot([*map(position, points)], ratios, "o-", color=COLORS[upstream], label=title, markersize=4)
            panel.set_xscale("log", base=10 if axis == "size" else 2)
            if axis != "size":
                values = RANKS if axis == "ranks" else GRIDS["edm"].batches
                panel.set_xticks(values, [*map(str, values)], minor=False)
            panel.set_xlabel(label)
            panel.set_ylim(0.9, 1.4)
        panels[0].set_ylabel("CPU time: DDO's step / its parts")
        panels[0].legend()
        return plots.svg(drawn)


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--figure", "image", type=click.Path(dir_okay=False, path_type=Path), help="SVG file to write.")
def main(results: Path, image: Path | None) -> None:
    """Print the results as tables, and draw their figure."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    header = ("", "parameters", "N", "DDO's step", "its parts", "ratio")
    print(table(header, steps(rows, "batch")))
    print(table(header, steps(rows, "size")))
    times = ("", "ranks", "CPU time of a rank", "ratio")
    print(table((*times, "bytes, DDO", "bytes, MLE", "bytes of our statistics"), ranks(rows)))
    if image:
        image.write_text(figure(rows))


if __name__ == "__main__":
    main()
