"""The demo's table and report, made from its journal and the files beside it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ddo_integrations.demo.data import CLASSES, Digits
from ddo_integrations.demo.evaluate import GRID_ROWS
from ddo_plugin.base.files import atomic_write
from ddo_plugin.jobs.journal import FILE_NAME, read
from ddo_plugin.selfplay.report import figures, history, page
from ddo_plugin.selfplay.report.history import History

ARMS = ("ddo", "mle")
Arms = Mapping[str, History]  # arm -> history, within one family

TITLES = {"diffusion": "Diffusion (an EDM-type network)", "tokens": "Tokens (next-scale prediction, as in VAR)"}
TEXTS = {
    "diffusion": (
        "The likelihood is the weighted denoising error at one noise level for each sample (Eq. 14-16). Samples come "
        "from Heun's method. The base was trained until more maximum likelihood gains nothing, as the control shows."
    ),
    "tokens": (
        "Likelihoods are exact (Eq. 1). The base was trained with dropout and is finetuned without it, as the paper "
        "does with VAR. The control gains because dropout is gone; DDO gains more. An exactly normalised model at its "
        "maximum of likelihood is a stationary point of DDO, so without this change nothing would move."
    ),
}


def by_family(root: Path, families: Sequence[str]) -> dict[str, Arms]:
    """Return the histories of each family's arms. The folder may also hold other families, finished or not."""
    histories = history.load(root)
    return {family: {arm: histories[f"{family}/{arm}"] for arm in ARMS} for family in families}


def table(families: Mapping[str, Arms]) -> page.Table:
    """Return the Fréchet distances of base, control and DDO, one row for each family."""
    rows = []
    for family, arms in families.items():
        base, control, ddo = arms["ddo"].base, arms["mle"].best, arms["ddo"].best
        rows.append(
            [
                family,
                *(f"{point.score:.2f} ± {point.spread:.2f}" for point in (base, control, ddo)),
                f"{ddo.score / base.score - 1:+.0%}",
                f"{ddo.score / control.score - 1:+.0%}",
            ]
        )
    head = ("", "base", "control", "DDO", "against base", "against control")
    note = (
        "Fréchet distance in the features of a small classifier, mean and standard deviation over sampling seeds. "
        "Lower is better. All networks use the same seeds. The control is the same run with more maximum likelihood "
        "instead of DDO. Control and DDO show their best round."
    )
    return page.Table(head, rows, best=3, note=note)


def terminal(table: page.Table) -> str:
    """Return the table as aligned text."""
    cells = [list(table.head), *table.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def warnings(arms: Arms) -> list[str]:
    """Return a line for each arm that ended early."""
    return [f"{history.name}: {history.ended}" for history in arms.values() if history.ended]


def write(root: Path, families: Mapping[str, Arms], command: str) -> Path:
    """Write report.html and overview.png, a summary for a README, beside the journal. Return the report's path."""
    grids = {family: _grids(root, arms) for family, arms in families.items()}
    with atomic_write(root / "overview.png") as file:
        file.write(figures.overview(families, grids))
    sections = [_family_section(root, family, arms, grids[family]) for family, arms in families.items()]
    sections += [_toy_section(root / fact["out"]) for fact in _facts(root, "toy")[-1:]]
    path = root / "report.html"
    page.write(
        path,
        title="DDO on the digits",
        lead=(
            "Direct Discriminative Optimization finetunes a likelihood model against its own frozen copy. Here it "
            "finetunes two tiny models of scikit-learn's 8×8 digits, which were trained from scratch on a CPU."
        ),
        table=table(families),
        sections=sections,
        command=command,
        versions=f"ddo-plugin {version('ddo-plugin')}, torch {version('torch')}, Python {platform.python_version()}",
    )
    return path


def _family_section(root: Path, family: str, arms: Arms, grids: Mapping[str, np.ndarray]) -> page.Section:
    setting = _settings(root, arms["ddo"].name)
    shown = [
        page.Figure(
            figures.rounds(arms),
            "Left: distance by round; bars are standard deviations over sampling seeds. Right: the likelihood of the "
            "real data, which DDO lowers.",
        )
    ]
    if arms["ddo"].points[1:]:
        shown.append(
            page.Figure(
                figures.training(arms["ddo"]),
                "DDO training, all rounds one after the other. r is the log-ratio of target and reference. The "
                "accuracy is the share of samples for which r has the right sign.",
            )
        )
    shown.append(
        page.Figure(figures.grids(grids), "Real digits, and samples of base, control and DDO from the same noise.")
    )
    return page.Section(TITLES[family], [TEXTS[family], setting], shown, warnings(arms))


def _grids(root: Path, arms: Arms) -> dict[str, np.ndarray]:
    """Return real digits, and samples of the three networks."""
    networks = {"base": arms["ddo"].base, "control": arms["mle"].best, "DDO": arms["ddo"].best}
    real = {"real": Digits(_data(root)).images[: GRID_ROWS * CLASSES]}
    return real | {name: images for name, point in networks.items() if (images := point.images()) is not None}


def _toy_section(file: Path) -> page.Section:
    with np.load(file) as stored:
        names = {"data": "data", "base": "maximum likelihood", "control": "more of it", "ddo": "DDO"}
        clouds = {f"{title}: {float(stored[f'near_{name}']):.0%}": stored[name] for name, title in names.items()}
    text = (
        "The idea of the paper's Figure 1: a network is too small for a ring of eight narrow modes. To cover all of "
        "them, it puts density between the modes. DDO finds its own samples there and moves this density back."
    )
    caption = "Density of 20,000 samples. The percentage is the share within three standard deviations of a mode."
    return page.Section("A toy in the plane", [text], [page.Figure(figures.clouds(clouds), caption)])


def _settings(root: Path, plan: str) -> str:
    candidates = [fact["candidate"] for fact in _facts(root, "evaluated") if fact["plan"] == plan and fact["candidate"]]
    return "α = {alpha:g}, β = {beta:g}.".format(**candidates[-1]) if candidates else ""


def _data(root: Path) -> Path:
    """Return any prepared data folder: all hold the same digits, whatever their seeds."""
    return next(root.glob("data-*/about.json")).parent


def _facts(root: Path, name: str) -> list[dict[str, Any]]:
    return [fact for fact in read(root / FILE_NAME) if fact["fact"] == name]
