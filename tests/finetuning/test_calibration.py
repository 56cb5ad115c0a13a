"""The probe of --ddo-beta=auto: what it chooses for a known spread, and that a resumed run chooses the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError
from ddo_plugin.finetuning.calibration import FILE_NAME, SPREAD, Calibration, likelihood_spread
from ddo_plugin.finetuning.statistics import FILE_NAME as STATISTICS
from ddo_plugin.finetuning.statistics import StatisticsLog
from ddo_plugin.objective.ddo import DDO, Outcome, Terms

ALPHA, USUAL, STEPS = 2.0, 0.05, 12
COUNT = 4096


def calibration(folder: Path, steps: int = STEPS) -> Calibration:
    return Calibration(lambda beta: DDO(ALPHA, beta), USUAL, steps, folder)


def terms(real: Tensor, fake: Tensor, r: Tensor | None = None, kept: Tensor | None = None) -> Terms:
    """Return terms with these log-likelihoods under the reference; r is 0 unless given."""
    r_real, r_fake = (torch.zeros_like(real), torch.zeros_like(fake)) if r is None else r.split([len(real), len(fake)])
    return Terms(real, real, r_real, r_fake, fake, fake, kept)


def gaussian(seed: int, std: float = 7.0) -> Terms:
    real, fake = std * torch.randn(2, COUNT, generator=torch.Generator().manual_seed(seed))
    return terms(real - 50, fake - 60)


def play(of: Calibration, steps: range, log: StatisticsLog | None = None) -> list[float]:
    """Run steps, each in two parts; return the β of each."""
    found = []
    for step in steps:
        for part in (0, 1):
            outcome = of.judge(gaussian(2 * step + part), step)
            if log is not None:
                log.add(step, outcome.statistics)
        found.append(of.beta)
    if log is not None:
        log.flush()
    return found


@pytest.mark.parametrize("std", [0.2, 7.0, 300.0])
def test_beta_is_one_over_the_standard_deviation_of_the_difference_of_gaussian_log_likelihoods(
    tmp_path: Path, std: float
) -> None:
    probe = calibration(tmp_path)
    for step in range(STEPS + 1):
        probe.judge(gaussian(step, std), step)
    assert probe.beta * std * math.sqrt(2) == pytest.approx(1, rel=0.02)


def test_what_a_real_sample_and_its_fake_share_does_not_count() -> None:
    """With paired noise, the noise level changes the likelihoods of both alike."""
    own, shared = gaussian(0), 100 * torch.randn(COUNT)
    both = terms(own.logp_ref_real + shared, own.logp_ref_fake + shared)
    assert likelihood_spread(both) == pytest.approx(7 * math.sqrt(2), rel=0.05)


def test_real_samples_without_fakes_do_not_count() -> None:
    found = likelihood_spread(terms(torch.tensor([1e9, 4.0, 1e9, 2.0]), torch.zeros(2), kept=torch.tensor([1, 3])))
    assert found == pytest.approx(math.sqrt(2))


def test_the_log_ratios_do_not_count(tmp_path: Path) -> None:
    """They depend on the learning rate, the step, α and β itself."""
    still, moved = gaussian(0), gaussian(0)
    moved = terms(moved.logp_ref_real, moved.logp_ref_fake, r=1e3 * torch.randn(2 * COUNT))
    assert likelihood_spread(still) == likelihood_spread(moved)


def test_the_first_step_has_the_usual_loss_and_no_beta_changes_the_gradient_at_0(tmp_path: Path) -> None:
    probe = calibration(tmp_path, steps=2)
    real, fake = torch.tensor([1.0, 2.0, 3.0, 5.0]), torch.tensor([1.0, -2.0, 3.0, -5.0])
    r = torch.zeros(8, requires_grad=True)
    betas, gradients = [], []
    for step in range(3):
        loss = probe.judge(terms(real, fake, r), step).mean()
        gradients.append(torch.autograd.grad(loss, r)[0])
        betas.append(probe.beta)
        if step == 0:
            assert loss.item() == pytest.approx((1 + ALPHA) * math.log(2))
    assert betas[0] == betas[1] == USUAL != betas[2]
    expected = torch.tensor([-0.5 * USUAL / 4] * 4 + [0.5 * ALPHA * USUAL / 4] * 4)
    assert all(torch.allclose(gradient, expected) for gradient in gradients)


def test_the_file_is_there_before_the_first_step_that_uses_it_and_nothing_changes_beta_later(tmp_path: Path) -> None:
    probe = calibration(tmp_path)
    play(probe, range(STEPS))
    assert not (tmp_path / FILE_NAME).exists()

    def build(beta: float) -> DDO:
        assert json.loads((tmp_path / FILE_NAME).read_text())["beta"] == beta
        return DDO(ALPHA, beta)

    probe.build = build
    assert len(set(play(probe, range(STEPS, STEPS + 9)))) == 1


@pytest.mark.parametrize("resumed", [1, 7, STEPS - 1, STEPS, STEPS + 1, STEPS + 9])
def test_a_resumed_run_has_the_same_beta(tmp_path: Path, resumed: int) -> None:
    """The statistics hold steps that the resumed run repeats."""
    expected = play(calibration(tmp_path), range(STEPS + 12), StatisticsLog(tmp_path / STATISTICS))
    if resumed <= STEPS:
        (tmp_path / FILE_NAME).unlink()
    again = play(calibration(tmp_path), range(resumed, STEPS + 12), StatisticsLog(tmp_path / STATISTICS))
    assert again == expected[resumed:]


def test_the_statistics_name_beta_and_the_phase(tmp_path: Path) -> None:
    probe = calibration(tmp_path, steps=2)
    found: list[Outcome] = [probe.judge(gaussian(step), step) for step in range(4)]
    assert [float(outcome.statistics["probe"]) for outcome in found] == [1, 1, 0, 0]
    assert [SPREAD in outcome.statistics for outcome in found] == [True, True, False, False]
    assert [float(outcome.statistics["beta"]) for outcome in found] == [USUAL, USUAL, probe.beta, probe.beta]


def test_steps_without_finite_likelihoods_are_left_out_and_a_probe_without_any_is_refused(tmp_path: Path) -> None:
    lost = terms(torch.full((8,), math.nan), torch.zeros(8))
    probe = calibration(tmp_path)
    for step in range(STEPS + 1):
        probe.judge(lost if step % 3 == 1 else gaussian(step), step)
    assert probe.beta * 7 * math.sqrt(2) == pytest.approx(1, rel=0.02)
    probe = calibration(tmp_path, steps=2)
    with pytest.raises(UserError, match="none of the 2 steps of the probe has finite log-likelihoods that differ"):
        for step in range(3):
            probe.judge(lost, step)


def test_a_beta_far_from_the_default_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for std, far in ((10.0, False), (300.0, True)):
        probe = calibration(tmp_path, steps=1)
        for step in range(2):
            probe.judge(gaussian(step, std), step)
        assert ("far from the default, 0.05" in capsys.readouterr().out) == far


def test_an_upstream_without_the_likelihoods_of_the_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--ddo-beta=auto needs the reference's log-likelihoods"):
        calibration(tmp_path).judge(Terms(torch.zeros(4), r_real=torch.zeros(4), r_fake=torch.zeros(4)), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file, but the probe of --ddo-beta=auto is over in this run; restore the file"),
        ("{", "cannot be read"),
        ("[1]", "does not hold a positive beta and spread"),
        ('{"beta": "1", "spread": 1}', "does not hold a positive beta and spread"),
        ('{"beta": NaN, "spread": 1}', "does not hold a positive beta and spread"),
    ],
)
def test_a_resumed_run_refuses_a_missing_or_damaged_file(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(UserError, match=message):
        calibration(tmp_path).judge(gaussian(0), STEPS + 1)
