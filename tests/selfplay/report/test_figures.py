"""Figures are SVG, the same at every run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.finetuning import statistics
from ddo_plugin.selfplay.report import figures
from ddo_plugin.selfplay.report.history import History, Point

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
CLOUD = np.random.default_rng(0).standard_normal((500, 2)) * 0.5


def a_history(folder: Path, name: str = "ddo", scores: tuple[float, ...] = (10.0, 8.0, 7.0), steps: int = 5) -> History:
    points = []
    for number, score in enumerate(scores):
        network = folder / name / f"r{number}" / "network"
        network.parent.mkdir(parents=True, exist_ok=True)
        evaluation = {"score": score, "spread": 0.2, "logp_real": -score}
        points.append(Point(number, network, evaluation, network.with_suffix(".grid.npy")))
        if number:
            rows = [
                {"step": step, "rewards/margin": step / 10}
                | {f"{what}/{kind}": 0.1 * step for what in ("rewards", "accuracies") for kind in ("real", "fake")}
                for step in range(steps)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (network.parent / statistics.FILE_NAME).write_text(lines)
    return History(name, points)


FIGURES: dict[str, Callable[[Path], str]] = {
    "rounds": lambda folder: figures.rounds({"ddo": a_history(folder), "mle": a_history(folder, "mle")}),
    "rounds of a base alone": lambda folder: figures.rounds({"ddo": a_history(folder, scores=(10.0,))}),
    "training": lambda folder: figures.training(a_history(folder)),
    "training without statistics": lambda folder: figures.training(a_history(folder, steps=0)),
    "grids": lambda folder: figures.grids({"real": IMAGES, "fake": IMAGES[:10]}),
    "grids of few images": lambda folder: figures.grids({"real": IMAGES[:3]}),
    "a sweep with a β that the runs choose": lambda folder: figures.sweep(
        {1: {(2.0, "auto"): 1.5, (2.0, 0.1): 1.7, (2.0, 0.3): 2.0}}, {(1, 2.0, "auto")}
    ),
    "clouds": lambda folder: figures.clouds({"data": CLOUD, "model": CLOUD[:100]}),
}


@pytest.mark.filterwarnings(
    "error",
    "ignore::ResourceWarning",  # Python may collect what an earlier test has left just now
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_well_formed_svg_and_comes_out_the_same_twice(name: str, tmp_path: Path) -> None:
    first = FIGURES[name](tmp_path)
    assert ElementTree.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"
    assert FIGURES[name](tmp_path) == first


def test_a_figure_is_the_same_in_every_process(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from ddo_plugin.selfplay.report import figures
sys.stdout.write(figures.clouds({'x': np.eye(2)}))
"""
    env = os.environ | {"PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout
    assert other == figures.clouds({"x": np.eye(2)})


def test_names_of_arms_are_escaped(tmp_path: Path) -> None:
    text = figures.rounds({"<script>alert(1)</script>": a_history(tmp_path)})
    assert "<script" not in text
    ElementTree.fromstring(text)


def test_a_likelihood_that_some_rounds_lack_is_left_out(tmp_path: Path) -> None:
    whole, partial = a_history(tmp_path), a_history(tmp_path)
    del partial.points[1].evaluation["logp_real"]
    assert len(figures.rounds({"ddo": partial})) < len(figures.rounds({"ddo": whole}))


def test_tiles_stand_row_by_row() -> None:
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    assert figures.tile(images, 2)[::2, ::2].tolist() == [[0, 1], [2, 3]]
    assert figures.tile(images, 10)[::2, ::2].tolist() == [[0, 1, 2, 3]]
    assert figures.tile(images, 3)[::2, ::2].tolist() == [[0, 1, 2]]  # only whole rows
