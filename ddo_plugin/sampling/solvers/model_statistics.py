"""DPM-Solver-v3's parametrisation of a model: coefficients l, s and b over λ = −log σ, and the integrals of a step.

With dx/dλ = −l x − f and f' ≈ s f + b, a step from λ_s to λ_t is

    x_t = e^{−∫l} x_s − ∫ e^{−∫_λ^t l} f(λ) dλ,    f(λ) = e^{∫_s^λ s} [g(λ) + ∫_s^λ e^{−∫_s^r s} b(r) dr]

where g, expanded at λ_s, is what s and b leave unexplained.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError

Coefficient = Tensor | float
_ROUNDING = 1e-3  # in λ, 0.1 % of σ: a range written in few digits, or in float32, still fits
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(8)


class Step(NamedTuple):
    """x_t = decay · x_s − Σ_k weights[k] · g^(k)(λ_s) − bias."""

    decay: Coefficient
    weights: Sequence[Coefficient]
    bias: Coefficient


class Parametrisation(Protocol):
    """What the solver asks of l, s and b."""

    def on(self, device: torch.device) -> Parametrisation:
        """The same on a device."""

    def check(self, log_snrs: Sequence[float]) -> None:
        """Raise a UserError if these λ are not covered."""

    def slope(self, log_snr: float) -> Coefficient:
        """l(λ)."""

    def carry(self, here: float, there: float) -> tuple[Coefficient, Coefficient]:
        """(scale, shift) that turn f at `there` into g = scale · f − shift, seen from `here`."""

    def step(self, here: float, there: float, terms: int) -> Step:
        """The integrals of a step with so many Taylor terms."""


class DataPrediction:
    """l = 1, s = b = 0, free of training: f is −D, the weights are ∫ e^{λ − λ_t} (λ − λ_s)^k / k! dλ."""

    def on(self, device: torch.device) -> DataPrediction:
        return self

    def check(self, log_snrs: Sequence[float]) -> None:
        """Every λ is covered."""

    def slope(self, log_snr: float) -> float:
        return 1.0

    def carry(self, here: float, there: float) -> tuple[float, float]:
        return 1.0, 0.0

    def step(self, here: float, there: float, terms: int) -> Step:
        width = there - here
        weights = [-math.expm1(-width)]
        for k in range(1, terms):  # by parts
            weights.append(width**k / math.factorial(k) - weights[-1])
        return Step(math.exp(-width), weights, 0.0)


@dataclass(frozen=True)
class ModelStatistics:
    """Empirical model statistics: l, s and b [T + 1, C, H, W] at λ [T + 1], linear in between."""

    log_snrs: Tensor
    l: Tensor  # noqa: E741  (the paper's name)
    s: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, getattr(self, field.name).to(torch.float64))
        if not len(self.log_snrs) == len(self.l) == len(self.s) == len(self.b) or len(self.log_snrs) < 2:
            raise ValueError("λ, l, s and b must have the same number of rows, and at least 2")

    def on(self, device: torch.device) -> ModelStatistics:
        return ModelStatistics(self.log_snrs, *(values.to(device) for values in (self.l, self.s, self.b)))

    def check(self, log_snrs: Sequence[float]) -> None:
        first, last = float(self.log_snrs[0]), float(self.log_snrs[-1])
        if min(log_snrs) < first - _ROUNDING or max(log_snrs) > last + _ROUNDING:
            asked = f"{math.exp(-max(log_snrs)):.4g} to {math.exp(-min(log_snrs)):.4g}"
            raise UserError(
                f"the model statistics cover σ from {math.exp(-last):.4g} to {math.exp(-first):.4g}, the noise levels "
                f"go from {asked}; beyond their range they say nothing: choose σ_min and σ_max inside it"
            )

    def slope(self, log_snr: float) -> Tensor:
        return self._at(torch.tensor([log_snr], dtype=torch.float64))[0][0]

    def carry(self, here: float, there: float) -> tuple[Tensor, Tensor]:
        path = self._path(here, there)
        return (-path.S[-1]).exp(), path.B[-1]

    def step(self, here: float, there: float, terms: int) -> Step:
        """Gauss-Legendre's rule in every cell of the grid, so that e^λ costs no accuracy however coarse the grid is."""
        path = self._path(here, there)
        widths = path.widths
        weights: list[Tensor] = [torch.zeros_like(path.L[0])] * terms
        bias = torch.zeros_like(path.L[0])
        for point, share in zip((_POINTS + 1) / 2, _WEIGHTS / 2, strict=True):
            L, S, B = (torch.lerp(values[:-1], values[1:], point) for values in (path.L, path.S, path.B))
            away = torch.lerp(path.offsets[:-1], path.offsets[1:], point)
            mass = share * widths * (L - path.L[-1] + S).exp()
            weights = [total + (mass * away**k / math.factorial(k)).sum(0) for k, total in enumerate(weights)]
            bias = bias + (mass * B).sum(0)
        return Step((-path.L[-1]).exp(), weights, bias)

    def _path(self, here: float, there: float) -> _Path:
        """The integrals from `here` to `there`, in either direction, at the grid's points between: trapezoidal rule."""
        low, high = sorted((here, there))
        inside = self.log_snrs[(self.log_snrs > low) & (self.log_snrs < high)]
        ends = torch.tensor([low, high], dtype=torch.float64)
        points = torch.cat([ends[:1], inside, ends[1:]])
        points = points if here <= there else points.flip(0)
        l, s, b = self._at(points)  # noqa: E741
        offsets = (points - here).to(l.device).reshape(-1, *[1] * (l.ndim - 1))
        L, S = _cumulative(l, offsets), _cumulative(s, offsets)
        return _Path(offsets, L, S, _cumulative((-S).exp() * b, offsets))

    def _at(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """l, s and b at λ, linear between the grid's points."""
        right = torch.searchsorted(self.log_snrs, points).clamp(1, len(self.log_snrs) - 1)
        left = right - 1
        share = (points - self.log_snrs[left]) / (self.log_snrs[right] - self.log_snrs[left])
        share = share.to(self.l.device).reshape(-1, *[1] * (self.l.ndim - 1))
        l, s, b = (torch.lerp(values[left], values[right], share) for values in (self.l, self.s, self.b))  # noqa: E741
        return l, s, b


class _Path(NamedTuple):
    """Points λ − λ_s and, up to each of them, L = ∫ l, S = ∫ s and B = ∫ e^{−S} b."""

    offsets: Tensor
    L: Tensor
    S: Tensor
    B: Tensor

    @property
    def widths(self) -> Tensor:
        return self.offsets.diff(dim=0)


def _cumulative(values: Tensor, points: Tensor) -> Tensor:
    """The integral up to each point, 0 at the first."""
    cells = (values[1:] + values[:-1]) / 2 * points.diff(dim=0)
    return torch.cat([torch.zeros_like(values[:1]), cells.cumsum(0)])


def read(folder: Path | str, sigma_min: float = 0.002, sigma_max: float = 80.0) -> ModelStatistics:
    """Statistics as the authors publish them: l.npz (l) and sb.npz (s, b), on a grid even in λ over [σ_min, σ_max].

    The files do not hold the range; the folder's name begins with it (0.002_80.0_1200_1024).
    """
    folder = Path(folder)
    l = _array(folder / "l.npz", "l")  # noqa: E741
    s, b = _array(folder / "sb.npz", "s"), _array(folder / "sb.npz", "b")
    if not l.shape == s.shape == b.shape or l.ndim < 2 or len(l) < 2:
        raise UserError(
            f"{folder}: l, s and b have the shapes {l.shape}, {s.shape} and {b.shape}; those of one model are all "
            "[T + 1, C, H, W]: fetch the folder again"
        )
    log_snrs = torch.linspace(-math.log(sigma_max), -math.log(sigma_min), len(l), dtype=torch.float64)
    return ModelStatistics(log_snrs, torch.from_numpy(l), torch.from_numpy(s), torch.from_numpy(b))


def range_of(folder: Path) -> tuple[float, float]:
    """σ_min and σ_max of the authors' statistics, by the folder's name; EDM's where it does not say them."""
    match = re.match(r"(\d+\.?\d*)_(\d+\.?\d*)_", folder.resolve().name)
    return (float(match[1]), float(match[2])) if match else (0.002, 80.0)


def _array(path: Path, key: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = np.asarray(arrays[key], dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("not all of its numbers are finite")
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: no array {key!r} can be read ({error}); statistics of DPM-Solver-v3 are a folder with l.npz (l) "
            "and sb.npz (s, b)"
        ) from error
    return values
