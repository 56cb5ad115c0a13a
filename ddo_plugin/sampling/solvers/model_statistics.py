"""The coefficients l, s and b of DPM-Solver-v3 over λ = −log σ, and the integrals of a step.

With dx/dλ = −l x − f and f' ≈ s f + b, a step from λ_s to λ_t is

    x_t = e^{−∫l} x_s − ∫ e^{−∫_λ^t l} f(λ) dλ,    f(λ) = e^{∫_s^λ s} [g(λ) + ∫_s^λ e^{−∫_s^r s} b(r) dr]

where g, expanded at λ_s, is the part of f that s and b do not predict.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ddo_plugin.base.archives import open_zip
from ddo_plugin.base.errors import UserError

Coefficient = Tensor | float
_ROUNDING = 1e-3  # tolerance in λ, 0.1 % of σ, for a range that is written in few digits or in float32
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(8)

REMEDY = "statistics of DPM-Solver-v3 are a folder with l.npz (l) and sb.npz (s, b)"


class Step(NamedTuple):
    """x_t = decay · x_s − Σ_k weights[k] · g^(k)(λ_s) − bias."""

    decay: Coefficient
    weights: Sequence[Coefficient]
    bias: Coefficient


class Parametrisation(Protocol):
    """The interface of l, s and b to the solver."""

    def on(self, device: torch.device) -> Parametrisation:
        """Return the same coefficients on a device."""

    def check(self, log_snrs: Sequence[float]) -> None:
        """Refuse λ outside the range of the coefficients."""

    def slope(self, log_snr: float) -> Coefficient:
        """Return l(λ)."""

    def carry(self, lambda_s: float, lambda_t: float) -> tuple[Coefficient, Coefficient]:
        """Return (scale, shift) that turn f at λ_t into g = scale · f − shift, as seen from λ_s."""

    def step(self, lambda_s: float, lambda_t: float, terms: int) -> Step:
        """Return the integrals of a step from λ_s to λ_t with this number of Taylor terms."""


class DataPrediction:
    """l = 1 and s = b = 0, without any statistics: f is −D, and the weights are ∫ e^{λ − λ_t} (λ − λ_s)^k / k! dλ."""

    def on(self, device: torch.device) -> DataPrediction:
        return self

    def check(self, log_snrs: Sequence[float]) -> None:
        """Accept every λ."""

    def slope(self, log_snr: float) -> float:
        return 1.0

    def carry(self, lambda_s: float, lambda_t: float) -> tuple[float, float]:
        return 1.0, 0.0

    def step(self, lambda_s: float, lambda_t: float, terms: int) -> Step:
        width = lambda_t - lambda_s
        weights = [-math.expm1(-width)]
        for k in range(1, terms):  # integration by parts
            weights.append(width**k / math.factorial(k) - weights[-1])
        return Step(math.exp(-width), weights, 0.0)


@dataclass(frozen=True)
class ModelStatistics:
    """Empirical model statistics: l, s and b [T + 1, C, H, W] at λ [T + 1], interpolated linearly."""

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
            levels = f"{math.exp(-max(log_snrs)):.4g} to {math.exp(-min(log_snrs)):.4g}"
            raise UserError(
                f"the model statistics cover σ from {math.exp(-last):.4g} to {math.exp(-first):.4g}, but the noise "
                f"levels go from {levels}; choose --sigma-min and --sigma-max within the range of the statistics"
            )

    def slope(self, log_snr: float) -> Tensor:
        return self._at(torch.tensor([log_snr], dtype=torch.float64))[0][0]

    def carry(self, lambda_s: float, lambda_t: float) -> tuple[Tensor, Tensor]:
        path = self._path(lambda_s, lambda_t)
        return (-path.S[-1]).exp(), path.B[-1]

    def step(self, lambda_s: float, lambda_t: float, terms: int) -> Step:
        """Integrate by the Gauss-Legendre rule in every cell of the grid, which stays accurate on coarse grids."""
        path = self._path(lambda_s, lambda_t)
        widths = path.widths
        weights: list[Tensor] = [torch.zeros_like(path.L[0])] * terms
        bias = torch.zeros_like(path.L[0])
        for point, weight in zip((_POINTS + 1) / 2, _WEIGHTS / 2, strict=True):
            L, S, B = (torch.lerp(values[:-1], values[1:], point) for values in (path.L, path.S, path.B))
            away = torch.lerp(path.offsets[:-1], path.offsets[1:], point)
            mass = weight * widths * (L - path.L[-1] + S).exp()
            weights = [total + (mass * away**k / math.factorial(k)).sum(0) for k, total in enumerate(weights)]
            bias = bias + (mass * B).sum(0)
        return Step((-path.L[-1]).exp(), weights, bias)

    def _path(self, lambda_s: float, lambda_t: float) -> _Path:
        """Integrate from λ_s to the grid points between it and λ_t, in either direction, by the trapezoidal rule."""
        low, high = sorted((lambda_s, lambda_t))
        inside = self.log_snrs[(self.log_snrs > low) & (self.log_snrs < high)]
        ends = torch.tensor([low, high], dtype=torch.float64)
        points = torch.cat([ends[:1], inside, ends[1:]])
        points = points if lambda_s <= lambda_t else points.flip(0)
        l, s, b = self._at(points)  # noqa: E741
        offsets = (points - lambda_s).to(l.device).reshape(-1, *[1] * (l.ndim - 1))
        L, S = _cumulative(l, offsets), _cumulative(s, offsets)
        return _Path(offsets, L, S, _cumulative((-S).exp() * b, offsets))

    def _at(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return l, s and b at λ by linear interpolation."""
        right = torch.searchsorted(self.log_snrs, points).clamp(1, len(self.log_snrs) - 1)
        left = right - 1
        share = (points - self.log_snrs[left]) / (self.log_snrs[right] - self.log_snrs[left])
        share = share.to(self.l.device).reshape(-1, *[1] * (self.l.ndim - 1))
        l, s, b = (torch.lerp(values[left], values[right], share) for values in (self.l, self.s, self.b))  # noqa: E741
        return l, s, b


class _Path(NamedTuple):
    """Points λ − λ_s with the integrals L = ∫ l, S = ∫ s and B = ∫ e^{−S} b from λ_s to each of them."""

    offsets: Tensor
    L: Tensor
    S: Tensor
    B: Tensor

    @property
    def widths(self) -> Tensor:
        return self.offsets.diff(dim=0)


def _cumulative(values: Tensor, points: Tensor) -> Tensor:
    """Return the integral from the first point to each point."""
    cells = (values[1:] + values[:-1]) / 2 * points.diff(dim=0)
    return torch.cat([torch.zeros_like(values[:1]), cells.cumsum(0)])


def read(folder: Path | str, sigma_min: float = 0.002, sigma_max: float = 80.0) -> ModelStatistics:
    """Read statistics in the authors' format: l.npz (l) and sb.npz (s, b), on an even grid in λ over [σ_min, σ_max].

    The files do not hold the range. The folder's name begins with it (0.002_80.0_1200_1024).
    """
    folder = Path(folder)
    l = _array(folder / "l.npz", "l")  # noqa: E741
    s, b = _array(folder / "sb.npz", "s"), _array(folder / "sb.npz", "b")
    if not l.shape == s.shape == b.shape or l.ndim < 2 or len(l) < 2:
        raise UserError(
            f"{folder}: l, s and b have the shapes {l.shape}, {s.shape} and {b.shape}, but must all be "
            "[T + 1, C, H, W]; download the folder again"
        )
    log_snrs = torch.linspace(-math.log(sigma_max), -math.log(sigma_min), len(l), dtype=torch.float64)
    return ModelStatistics(log_snrs, torch.from_numpy(l), torch.from_numpy(s), torch.from_numpy(b))


def range_of(folder: Path) -> tuple[float, float]:
    """Return σ_min and σ_max from the name of a folder of statistics, or EDM's if the name does not hold them."""
    match = re.match(r"(\d+\.?\d*)_(\d+\.?\d*)_", folder.resolve().name)
    return (float(match[1]), float(match[2])) if match else (0.002, 80.0)


def _array(path: Path, key: str) -> np.ndarray:
    with open_zip(path, remedy=REMEDY) as archive:
        values = archive.array(key).astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"{path}: {key} holds NaN or infinity; {REMEDY}")
    return values
