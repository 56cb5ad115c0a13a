"""DPM-Solver-v3 (Zheng et al. 2023, arXiv:2310.13268): multistep predictor and corrector for any denoiser.

In λ = −log σ the probability-flow ODE is dx/dλ = D − x = −l x − f with f = (1 − l) x − D, for any l(λ). The linear part
is solved exactly; f is carried along s and b (model_statistics.py), and what is left of it is a
Taylor polynomial through evaluations that were made anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddo_plugin.objective.diffusion import Denoiser
from ddo_plugin.sampling.solvers.denoising import estimate_clean
from ddo_plugin.sampling.solvers.model_statistics import DataPrediction, Parametrisation
from ddo_plugin.sampling.solvers.noise_levels import check_levels

ORDERS = (1, 2, 3)


class Evaluation(NamedTuple):
    """What the denoiser said at λ."""

    log_snr: float  # half of it: λ = log(α/σ), and α is 1
    f: Tensor


@torch.no_grad()
def sample(
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    *,
    order: int = 2,
    corrector: bool = True,
    pseudo_predictor: bool = False,
    pseudo_corrector: bool = False,
    lower_order_final: bool = True,
    statistics: Parametrisation | None = None,
) -> Tensor:
    """Solve the probability-flow ODE from unit-variance latents with one evaluation a step; the state is in float64.

    A step of order n uses n evaluations. The corrector redoes a step with the evaluation at its end, which the next
    step needs anyway; with `pseudo_corrector` it is of order n + 1, by divided differences. `lower_order_final` lowers
    the order towards the end. Without statistics l = 1 and s = b = 0: data prediction, as in DPM-Solver++. A step to
    σ = 0 ends at D(x).
    """
    if order not in ORDERS:
        raise ValueError(f"the order must be 1, 2 or 3, not {order}")
    check_levels(sigmas)
    rule: Parametrisation = DataPrediction() if statistics is None else statistics.on(latents.device)
    levels = sigmas.tolist()
    rule.check([_log_snr(sigma) for sigma in levels if sigma > 0])
    x = latents.to(torch.float64) * sigmas[0]
    past: list[Evaluation] = []  # newest first
    start, used = x, 0  # where the last step began, and its order
    for number, (here, there) in enumerate(pairwise(levels)):
        denoised = estimate_clean(denoise, x, sigmas[number])
        if there == 0:
            return denoised
        now = Evaluation(_log_snr(here), (1 - rule.slope(_log_snr(here))) * x - denoised)
        if corrector and past:
            known = [past[0], now, *past[1:]][: used + pseudo_corrector]
            x = advance(start, known, now.log_snr, rule, pseudo_corrector)
        start, past = x, [now, *past[: order - 1]]
        used = min(len(past), len(levels) - 1 - number if lower_order_final else order)
        x = advance(x, past[:used], _log_snr(there), rule, pseudo_predictor)
    return x


def advance(x: Tensor, known: Sequence[Evaluation], there: float, rule: Parametrisation, pseudo: bool) -> Tensor:
    """One step from the first of the known evaluations, where x is, to λ = `there`; of the order of their number."""
    here = known[0].log_snr
    step = rule.step(here, there, len(known))
    # g is f without what s and b foresee, seen from `here`: where they fit the model it is constant
    moved = [rule.carry(here, known_at) for known_at, _ in known]
    g = [scale * f - shift for (scale, shift), (_, f) in zip(moved, known, strict=True)]
    slopes = derivatives([known_at - here for known_at, _ in known], pseudo)
    x = step.decay * x - step.bias
    for weight, row in zip(step.weights, slopes, strict=True):
        x = x - weight * sum(share * value for share, value in zip(row, g, strict=True))
    return x


def derivatives(offsets: Sequence[float], pseudo: bool) -> list[list[float]]:
    """[n][n] rows that turn values at n offsets, the first of them 0, into derivatives 0 to n − 1 at 0.

    Those of the polynomial through the values; pseudo: each divided difference for itself, so that the k-th derivative
    takes k + 1 values alone.
    """
    count = len(offsets)
    if not pseudo:
        powers = [[offset**k / math.factorial(k) for k in range(count)] for offset in offsets]
        return np.linalg.inv(powers).tolist()
    column, rows = np.eye(count), [np.eye(count)[0]]
    for k in range(1, count):
        widths = np.subtract(offsets[k:], offsets[:-k])
        column = np.diff(column, axis=0) / widths[:, None]
        rows.append(math.factorial(k) * column[0])
    return np.stack(rows).tolist()


def _log_snr(sigma: float) -> float:
    return -math.log(sigma)
