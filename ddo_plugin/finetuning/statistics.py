"""Statistics of each step as JSON lines, and the watch for divergence and collapse."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ddo_plugin.base.errors import CollapseError
from ddo_plugin.base.files import append, atomic_write, writing

FILE_NAME = "ddo-stats.jsonl"
STEPS_PER_FLUSH = 16  # number of steps that are collected before the values are read from the device and written
WATCH_WINDOW = 16  # steps over which the reward of real data is averaged before it is judged
LOST_STEPS = 5  # successive steps without a finite log-ratio that end a run; fp16 skips single steps


class StatisticsLog:
    """Appends one line for each step: the mean of every statistic over the batch (`nonfinite` is a sum)."""

    def __init__(self, path: Path, collapse_bound: float | None = None):
        self.path, self.collapse_bound = path, collapse_bound
        self._pending: list[tuple[int, list[str], Tensor, int]] = []
        self._recent: list[float] = []
        self._lost = 0  # successive steps without a finite log-ratio
        self._resumed = False

    def add(self, step: int, statistics: Mapping[str, Tensor]) -> None:
        """Add the statistics of a step; several calls for one step, as in gradient accumulation, are averaged."""
        names = [name for name, values in statistics.items() if values.numel()]
        if not names:
            return
        means = torch.stack([_reduce(name, statistics[name]) for name in names])
        if len(self._pending) >= STEPS_PER_FLUSH and self._pending[-1][0] != step:
            self.flush()
        self._pending.append((step, names, means, _count_judged(statistics)))

    def flush(self) -> None:
        """Write the pending lines; raise CollapseError if the run diverged, or collapsed by `collapse_bound`."""
        if not self._pending:
            return
        values = iter(torch.cat([means for _, _, means, _ in self._pending]).tolist())
        rows: dict[int, dict[str, list[float]]] = {}
        judged: dict[float, int] = {}
        for step, names, _, count in self._pending:
            judged[step] = judged.get(step, 0) + count
            for name in names:
                rows.setdefault(step, {}).setdefault(name, []).append(next(values))
        self._pending.clear()
        lines = [{"step": step} | {name: _combine(name, v) for name, v in row.items()} for step, row in rows.items()]
        with writing(str(self.path)):
            self._forget_later_steps(lines[0]["step"])
            append(self.path, "".join(json.dumps(line) + "\n" for line in lines), durable=False)
        self._refuse_divergence(lines, judged)
        self._watch(lines)

    def _forget_later_steps(self, step: float) -> None:
        """Drop the lines from this step on, which a resumed run repeats."""
        if self._resumed:
            return
        self._resumed = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [line for line in read(self.path) if line["step"] < step]
            with atomic_write(self.path) as file:
                file.writelines((json.dumps(line) + "\n").encode() for line in kept)
            self._recent = [line["rewards/real"] for line in kept if "rewards/real" in line][-WATCH_WINDOW:]

    def _refuse_divergence(self, lines: list[dict[str, float]], judged: Mapping[float, int]) -> None:
        """Raise CollapseError if no log-ratio of several steps is finite. A network of NaNs would go on training.

        `judged` is the number of log-ratios of each step.
        """
        for line in lines:
            step = line["step"]
            self._lost = self._lost + 1 if 0 < judged[step] <= line.get("nonfinite", 0) else 0
            if self._lost == LOST_STEPS:
                raise CollapseError(
                    f"diverged at step {int(step)}: no log-ratio of {LOST_STEPS} successive steps is finite; "
                    "try a smaller learning rate"
                )

    def _watch(self, lines: list[dict[str, float]]) -> None:
        self._recent += [line["rewards/real"] for line in lines if "rewards/real" in line]
        del self._recent[:-WATCH_WINDOW]
        if self.collapse_bound is None or len(self._recent) < WATCH_WINDOW:
            return
        mean = sum(self._recent) / len(self._recent)
        if not mean >= -self.collapse_bound:  # NaN is a collapse too
            value = "not a number" if math.isnan(mean) else f"{mean:.3g}, below −{self.collapse_bound:g}"
            raise CollapseError(
                f"collapsed at step {int(lines[-1]['step'])}: the mean reward of real data over {WATCH_WINDOW} steps "
                f"is {value}; try a smaller alpha, a larger beta or a smaller learning rate"
            )


def read(path: Path) -> list[dict[str, float]]:
    """Return the lines of a statistics file. Leave out damaged ones, such as a last one that a kill cut short."""
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and "step" in row and all(type(value) in (int, float) for value in row.values()):
                rows.append(row)
    return rows


def _reduce(name: str, values: Tensor) -> Tensor:
    values = values.double()  # torch cannot average integers and booleans; float64 keeps digits
    return values.sum() if name == "nonfinite" else values.mean()


def _count_judged(statistics: Mapping[str, Tensor]) -> int:
    """Return the number of log-ratios, or of likelihoods if the objective compares nothing."""
    for kind in ("rewards", "logps"):
        judged = [statistics[f"{kind}/{of}"].numel() for of in ("real", "fake") if f"{kind}/{of}" in statistics]
        if judged:
            return sum(judged)
    return 0


def _combine(name: str, values: list[float]) -> float:
    total = math.fsum(values) if all(map(math.isfinite, values)) else sum(values)
    return total if name == "nonfinite" else total / len(values)
