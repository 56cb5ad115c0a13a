"""The probe of --ddo-beta=auto: what it chooses for a known measure, and that a resumed run chooses the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError
from ddo_plugin.finetuning.calibration import FILE_NAME, LARGEST, SIZE, TARGET, Calibration, measure
from ddo_plugin.finetuning.statistics import FILE_NAME as STATISTICS
from ddo_plugin.finetuning.statistics import StatisticsLog
from ddo_plugin.objective.ddo import DDO, Outcome, Terms

Q90 = 1.6449  # of |x| for a standard normal x
ALPHA, USUAL, STEPS = 2.0, 0.05, 40


def calibration(folder: Path, steps: int = STEPS) -> Calibration:
    return Calibration(lambda beta: DDO(ALPHA, beta), USUAL, steps, folder)


def terms(r: Tensor) -> Terms:
    real, fake = r.chunk(2)
    return Terms(torch.zeros_like(real), r_real=real, r_fake=fake)


def gaussian(step: int, std: float, count: int = 4096) -> Terms:
    return terms(std * torch.randn(count, generator=torch.Generator().manual_seed(step)))


def play(of: Calibration, steps: range, log: StatisticsLog | None = None) -> list[float]:
    """Run steps, each in two parts; return the β of each. r grows with the step, and is 0 at step 0."""
    found = []
    for step in steps:
        for part in (0, 1):
            outcome = of.judge(gaussian(2 * step + part, 0.5 * step), step)
            if log is not None:
                log.add(step, outcome.statistics)
        found.append(of.beta)
    if log is not None:
        log.flush()
    return found


@pytest.mark.parametrize("std", [1.0, 7.0, 300.0])
def test_nine_tenths_of_gaussian_rewards_are_below_the_target(tmp_path: Path, std: float) -> None:
    probe = calibration(tmp_path)
    for step in range(STEPS + 1):
        probe.judge(gaussian(step, std), step)
    assert probe.fixed
    assert probe.beta * std * Q90 == pytest.approx(TARGET, rel=0.02)


def test_the_measure_is_a_quantile_over_real_and_fake_log_ratios_together() -> None:
    r = torch.arange(1.0, 11.0) * torch.tensor([1.0, -1.0] * 5)
    assert measure(terms(r)) == pytest.approx(9.1)
    assert measure(terms(torch.zeros(8))) == 0
    assert not math.isfinite(measure(terms(torch.tensor([1.0, math.nan]))))


def test_beta_is_at_most_that_of_theorem_3_1(tmp_path: Path) -> None:
    probe = calibration(tmp_path)
    for step in range(STEPS + 1):
        probe.judge(gaussian(step, 1e-3), step)
    assert probe.beta == LARGEST


def test_the_first_step_has_the_usual_loss_and_no_beta_changes_the_gradient_at_0(tmp_path: Path) -> None:
    probe = calibration(tmp_path)
    r = torch.zeros(8, requires_grad=True)
    first = probe.judge(terms(r), 0)
    assert first.mean().item() == pytest.approx((1 + ALPHA) * math.log(2))
    gradients = []
    for step, std in ((1, 0.0), (2, 3.0), (3, 50.0)):
        probe.judge(gaussian(step, std), step)
        (gradient,) = torch.autograd.grad(probe.judge(terms(r), step).mean(), r)
        gradients.append(gradient)
    expected = torch.tensor([-0.5 * USUAL / 4] * 4 + [0.5 * ALPHA * USUAL / 4] * 4)
    assert all(torch.allclose(gradient, expected) for gradient in gradients)


def test_after_the_probe_nothing_changes_beta(tmp_path: Path) -> None:
    betas = play(calibration(tmp_path), range(STEPS + 20))
    assert betas[STEPS - 1] > betas[STEPS]
    assert len(set(betas[STEPS:])) == 1
    assert json.loads((tmp_path / FILE_NAME).read_text())["beta"] == betas[-1]


def test_the_file_is_there_before_the_first_step_that_uses_it(tmp_path: Path) -> None:
    probe = calibration(tmp_path)
    play(probe, range(STEPS))
    assert not (tmp_path / FILE_NAME).exists()

    def build(beta: float) -> DDO:
        assert json.loads((tmp_path / FILE_NAME).read_text())["beta"] == beta
        return DDO(ALPHA, beta)

    probe.build = build
    play(probe, range(STEPS, STEPS + 1))


@pytest.mark.parametrize("resumed", [1, 7, STEPS - 1, STEPS, STEPS + 1, STEPS + 9])
def test_a_resumed_run_has_the_same_beta(tmp_path: Path, resumed: int) -> None:
    """The statistics may hold steps that the resumed run repeats."""
    log = StatisticsLog(tmp_path / STATISTICS)
    expected = play(calibration(tmp_path), range(STEPS + 12), log)
    if resumed <= STEPS:
        (tmp_path / FILE_NAME).unlink()
    again = play(calibration(tmp_path), range(resumed, STEPS + 12), StatisticsLog(tmp_path / STATISTICS))
    assert again == expected[resumed:]


def test_the_statistics_name_beta_and_the_phase(tmp_path: Path) -> None:
    probe = calibration(tmp_path, steps=2)
    found: list[Outcome] = [probe.judge(gaussian(step, step), step) for step in range(4)]
    assert [float(outcome.statistics["probe"]) for outcome in found] == [1, 1, 0, 0]
    assert [SIZE in outcome.statistics for outcome in found] == [True, True, False, False]
    assert [float(outcome.statistics["beta"]) for outcome in found][:2] == [USUAL, LARGEST]
    assert float(found[3].statistics["beta"]) == probe.beta


def test_steps_without_finite_log_ratios_are_left_out(tmp_path: Path) -> None:
    probe = calibration(tmp_path)
    for step in range(STEPS + 1):
        r = gaussian(step, 7.0)
        probe.judge(terms(torch.full((8,), math.nan)) if step % 3 == 1 else r, step)
    assert probe.beta * 7 * Q90 == pytest.approx(TARGET, rel=0.02)


def test_a_probe_without_any_measure_is_refused(tmp_path: Path) -> None:
    probe = calibration(tmp_path, steps=3)
    with pytest.raises(UserError, match="--ddo-beta=auto: all log-ratios of the 3 steps of the probe are 0"):
        for step in range(4):
            probe.judge(terms(torch.zeros(8)), step)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file, but the probe of --ddo-beta=auto is over in this run; restore the file"),
        ("{", "cannot be read"),
        ("[1]", "does not hold a positive beta and q90"),
        ('{"beta": "1", "q90": 1}', "does not hold a positive beta and q90"),
        ('{"beta": NaN, "q90": 1}', "does not hold a positive beta and q90"),
    ],
)
def test_a_resumed_run_refuses_a_missing_or_damaged_file(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(UserError, match=message):
        calibration(tmp_path).judge(gaussian(0, 1.0), STEPS + 1)
