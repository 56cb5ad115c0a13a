"""The look of all figures: colours that are readable on light and dark pages, and the conversion to SVG and PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT = "#6b7280", "#9ca3af"  # readable on white and on near-black
COLORS = {"ddo": "#d9480f", "mle": "#4c6ef5", "real": "#2b8a3e", "fake": "#c2255c"}
LABELS = {"ddo": "DDO", "mle": "control (more maximum likelihood)"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ddo-plugin",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element, the same bytes each time."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def canvas(columns: int, width: float = 9.0, height: float = 2.9) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with this number of axes side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, dpi=160, metadata={"Software": None})
    return buffer.getvalue()
