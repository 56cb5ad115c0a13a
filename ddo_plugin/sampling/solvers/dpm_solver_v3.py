"""DPM-Solver-v3 (Zheng et al. 2023, arXiv:2310.13268): multistep predictor and corrector for any denoiser.

In λ = −log σ the probability-flow ODE is dx/dλ = D − x = −l x − f with f = (1 − l) x − D, for any l(λ). The linear part
is solved exactly. The coefficients s and b predict how f changes (model_statistics.py). The rest of the change is a
Taylor polynomial through the evaluations of this step and the previous steps.
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
    """An evaluation of the denoiser at λ."""

    log_snr: float  # λ = log(α/σ), half the log-SNR; α is 1
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
    """Solve the probability-flow ODE from unit-variance latents with one evaluation per step. The state is in float64.

    A step of order n uses n evaluations. The corrector repeats a step with the evaluation at its end, which the next
    step needs anyway. With `pseudo_corrector` it has order n + 1 and uses divided differences. `lower_order_final`
    lowers the order of the last steps. Without statistics, l = 1 and s = b = 0, which is the data prediction of
    DPM-Solver++. A step to σ = 0 ends at D(x).
    """
    if order not in ORDERS:
        raise ValueError(f"the order must be 1, 2 or 3, not {order}")
    check_levels(sigmas)
    rule: Parametrisation = DataPrediction() if statistics is None else statistics.on(latents.device)
    levels = sigmas.tolist()
    rule.check([_log_snr(sigma) for sigma in levels if sigma > 0])
    x = latents.to(torch.float64) * sigmas[0]
    previous: list[Evaluation] = []  # newest first
    x_start, order_used = x, 0  # the state at the start of the last step, and that step's order
    for step, (sigma, sigma_next) in enumerate(pairwise(levels)):
        denoised = estimate_clean(denoise, x, sigmas[step])
        if sigma_next == 0:
            return denoised
        current = Evaluation(_log_snr(sigma), (1 - rule.slope(_log_snr(sigma))) * x - denoised)
        if corrector and previous:
            evaluations = [previous[0], current, *previous[1:]][: order_used + pseudo_corrector]
            x = advance(x_start, evaluations, current.log_snr, rule, pseudo_corrector)
        x_start, previous = x, [current, *previous[: order - 1]]
        order_used = min(len(previous), len(levels) - 1 - step if lower_order_final else order)
        x = advance(x, previous[:order_used], _log_snr(sigma_next), rule, pseudo_predictor)
    return x


def advance(
    x: Tensor, evaluations: Sequence[Evaluation], lambda_t: float, rule: Parametrisation, pseudo: bool
) -> Tensor:
    """Return the state at λ_t, from the state x at λ_s of the first evaluation. The order is their number."""
    lambda_s = evaluations[0].log_snr
    step = rule.step(lambda_s, lambda_t, len(evaluations))
    # g is f without the change that s and b predict, as seen from λ_s: constant where s and b fit the model
    carried = [rule.carry(lambda_s, log_snr) for log_snr, _ in evaluations]
    g = [scale * f - shift for (scale, shift), (_, f) in zip(carried, evaluations, strict=True)]
    rows = derivatives([log_snr - lambda_s for log_snr, _ in evaluations], pseudo)
    x = step.decay * x - step.bias
    for weight, row in zip(step.weights, rows, strict=True):
        x = x - weight * sum(coefficient * value for coefficient, value in zip(row, g, strict=True))
    return x


def derivatives(offsets: Sequence[float], pseudo: bool) -> list[list[float]]:
    """Return a matrix [n][n] that turns values at n offsets, the first of which is 0, into derivatives 0 to n − 1 at 0.

    The derivatives are those of the polynomial through all values. With `pseudo`, the k-th derivative is a divided
    difference of the first k + 1 values.
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
