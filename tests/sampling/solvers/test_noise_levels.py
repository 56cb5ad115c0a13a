"""The noise levels at which samplers ask the denoiser."""

from __future__ import annotations

import pytest
import torch

from ddo_plugin.sampling.solvers.choices import SPACINGS
from ddo_plugin.sampling.solvers.noise_levels import noise_steps

EVEN = {"edm": lambda sigmas: sigmas ** (1 / 7), "logSNR": lambda sigmas: sigmas.log(), "time_uniform": lambda x: x}


@pytest.mark.parametrize("spacing", SPACINGS)
def test_each_spacing_is_even_in_its_own_terms(spacing: str) -> None:
    gaps = EVEN[spacing](noise_steps(11, spacing=spacing)[:-1]).diff()
    torch.testing.assert_close(gaps, gaps[:1].expand(10))
    for other in set(SPACINGS) - {spacing}:
        assert EVEN[other](noise_steps(11, spacing=spacing)[:-1]).diff().std() > 0.01


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("to_zero", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_levels_are_one_more_than_steps_and_end_where_they_should(spacing: str, to_zero: bool, steps: int) -> None:
    sigmas = noise_steps(steps, spacing=spacing, to_zero=to_zero)
    assert (len(sigmas), sigmas.dtype) == (steps + 1, torch.float64)
    assert (sigmas.diff() < 0).all()
    assert float(sigmas[0]) == pytest.approx(80)
    assert float(sigmas[-1]) == pytest.approx(0 if to_zero else 0.002)
    if to_zero and steps > 1:
        assert float(sigmas[-2]) == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("steps", "lowest", "highest"), [(0, 0.002, 80), (4, 80, 0.002), (4, 0, 80), (4, 0.1, float("nan"))]
)
def test_impossible_levels_are_refused(steps: int, lowest: float, highest: float) -> None:
    with pytest.raises(ValueError, match=r"steps must be at least 1|at most sigma_max"):
        noise_steps(steps, lowest, highest)


def test_an_unknown_spacing_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'quadratic'.*edm, logSNR, time_uniform"):
        noise_steps(5, spacing="quadratic")
