"""The statistics file on a real disk, and the watch that ends a collapsed run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from ddo_plugin.base.errors import CollapseError
from ddo_plugin.finetuning.statistics import LOST_STEPS, STEPS_PER_FLUSH, WATCH_WINDOW, StatisticsLog, read
from ddo_plugin.objective.ddo import DDO, MLE, Terms


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "ddo-stats.jsonl"


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


def fill(log: StatisticsLog, steps: range, reward: float = 0.0) -> None:
    for step in steps:
        log.add(step, {"rewards/real": values(reward)})
    log.flush()


# -- the lines --------------------------------------------------------------------------------------------------------


def test_a_step_is_one_line_of_means(path: Path) -> None:
    log = StatisticsLog(path)
    log.add(0, {"rewards/real": values(1, 2, 6), "nonfinite": values(1, 2)})
    log.add(1, {"rewards/real": values(5), "nonfinite": values(0)})
    log.flush()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 0, "rewards/real": 3.0, "nonfinite": 3.0},
        {"step": 1, "rewards/real": 5.0, "nonfinite": 0.0},
    ]


def test_accumulation_rounds_of_a_step_are_averaged_and_nonfinite_is_summed(path: Path) -> None:
    log = StatisticsLog(path)
    for reward, bad in [(1, 2), (2, 0), (6, 3)]:
        log.add(7, {"rewards/real": values(reward), "nonfinite": values(bad)})
    log.flush()
    assert read(path) == [{"step": 7, "rewards/real": 3.0, "nonfinite": 5.0}]


@pytest.mark.parametrize("rounds", [3, STEPS_PER_FLUSH + 5])
def test_rounds_of_a_step_stay_together_however_many_they_are(path: Path, rounds: int) -> None:
    log = StatisticsLog(path)
    for step in range(20):
        for round_ in range(rounds):
            log.add(step, {"rewards/real": values(step + round_)})
    log.flush()
    expected = [{"step": step, "rewards/real": step + (rounds - 1) / 2} for step in range(20)]
    assert read(path) == expected


def test_a_statistic_without_values_is_left_out(path: Path) -> None:
    """As for fakes where every label of a batch was dropped; rounds that have some count."""
    log = StatisticsLog(path)
    log.add(0, {"rewards/fake": values(), "rewards/real": values(1)})
    log.add(0, {"rewards/fake": values(4), "rewards/real": values(3)})
    log.add(1, {"rewards/fake": values(), "rewards/real": values(1)})
    log.flush()
    assert read(path) == [{"step": 0, "rewards/real": 2.0, "rewards/fake": 4.0}, {"step": 1, "rewards/real": 1.0}]


def test_an_objective_may_report_nothing(path: Path) -> None:
    log = StatisticsLog(path)
    log.add(0, {})
    log.add(1, {"rewards/real": values()})
    log.add(2, {"rewards/real": values(1)})
    log.flush()
    assert read(path) == [{"step": 2, "rewards/real": 1.0}]


def test_statistics_may_be_counts_or_flags_and_are_averaged_in_float64(path: Path) -> None:
    log = StatisticsLog(path)
    log.add(0, {"count": torch.tensor([1, 2]), "flag": torch.tensor([True, False]), "logps": torch.full((3,), 1e8 + 8)})
    log.flush()
    assert read(path) == [{"step": 0, "count": 1.5, "flag": 0.5, "logps": 1e8 + 8}]


def test_values_that_are_not_finite_are_written_as_they_are(path: Path) -> None:
    log = StatisticsLog(path)
    log.add(0, {"rewards/real": values(math.nan, 1), "loss/real": values(math.inf)})
    log.add(0, {"rewards/real": values(1), "loss/real": values(1)})
    log.flush()
    (line,) = read(path)
    assert math.isnan(line["rewards/real"])
    assert line["loss/real"] == math.inf


def test_what_the_objectives_report_can_be_logged(path: Path) -> None:
    log, zero = StatisticsLog(path), torch.zeros(4)
    log.add(0, DDO(1, 0.1)(Terms(zero, zero, zero, zero)).statistics)
    log.add(1, MLE()(Terms(zero)).statistics)
    log.flush()
    ddo, mle = read(path)
    assert ddo["loss/real"] == ddo["loss/fake"] == pytest.approx(math.log(2))
    assert set(mle) == {"step", "loss/real", "logps/real", "nonfinite"}


def test_lines_reach_the_disk_every_so_many_steps(path: Path) -> None:
    log = StatisticsLog(path)
    for step in range(STEPS_PER_FLUSH + 1):
        log.add(step, {"rewards/real": values(0)})
    assert len(read(path)) == STEPS_PER_FLUSH
    log.flush()
    log.flush()
    assert len(read(path)) == STEPS_PER_FLUSH + 1


def test_a_run_appends_to_its_file_and_rewrites_it_at_its_start_alone(path: Path) -> None:
    log = StatisticsLog(path)
    fill(log, range(3))
    file = path.stat().st_ino
    fill(log, range(3, 6))
    assert path.stat().st_ino == file
    fill(StatisticsLog(path), range(6, 9))
    assert path.stat().st_ino != file
    assert len(read(path)) == 9


# -- interruptions ----------------------------------------------------------------------------------------------------


def test_a_resumed_run_forgets_the_steps_that_it_repeats(path: Path) -> None:
    fill(StatisticsLog(path), range(10), reward=1)
    resumed = StatisticsLog(path)
    fill(resumed, range(6, 8), reward=2)
    fill(resumed, range(8, 9), reward=3)
    assert [(line["step"], line["rewards/real"]) for line in read(path)] == [
        *((step, 1) for step in range(6)),
        (6, 2),
        (7, 2),
        (8, 3),
    ]


def test_a_run_started_afresh_in_the_same_folder_forgets_all(path: Path) -> None:
    fill(StatisticsLog(path), range(10))
    fill(StatisticsLog(path), range(2))
    assert [line["step"] for line in read(path)] == [0, 1]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_cut_short_by_a_kill_is_left_out_and_mended_by_the_next_run(path: Path, cut: int) -> None:
    fill(StatisticsLog(path), range(3))
    path.write_bytes(path.read_bytes()[: -1 - cut])
    assert [line["step"] for line in read(path)] == [0, 1]
    fill(StatisticsLog(path), range(2, 4))
    assert [line["step"] for line in map(json.loads, path.read_text().splitlines())] == [0, 1, 2, 3]


def test_forgetting_never_leaves_half_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run killed while it forgets steps must not cost the steps before them."""
    fill(StatisticsLog(path), range(10))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(StatisticsLog(path), range(6, 8))
    assert len(read(path)) == 10


# -- collapse ---------------------------------------------------------------------------------------------------------


def test_a_collapse_ends_the_run_after_its_lines_were_written(path: Path) -> None:
    log = StatisticsLog(path, collapse_bound=1.0)
    fill(log, range(WATCH_WINDOW), reward=-0.9)
    with pytest.raises(CollapseError, match=r"collapsed at step 31.*below −1; try a smaller alpha"):
        fill(log, range(WATCH_WINDOW, 2 * WATCH_WINDOW), reward=-1.1)
    assert len(read(path)) == 2 * WATCH_WINDOW


def test_a_collapse_is_judged_by_the_mean_over_a_window(path: Path) -> None:
    log = StatisticsLog(path, collapse_bound=1.0)
    fill(log, range(WATCH_WINDOW - 1), reward=0.0)
    fill(log, range(WATCH_WINDOW - 1, WATCH_WINDOW), reward=-10)  # one bad step: −10/16 on average
    with pytest.raises(CollapseError):
        fill(log, range(WATCH_WINDOW, WATCH_WINDOW + 1), reward=-10)


def test_too_few_steps_are_no_collapse(path: Path) -> None:
    fill(StatisticsLog(path, collapse_bound=1.0), range(WATCH_WINDOW - 1), reward=-100)


def test_a_run_without_a_bound_is_never_ended(path: Path) -> None:
    fill(StatisticsLog(path), range(3 * WATCH_WINDOW), reward=-1e9)


def test_nan_is_a_collapse(path: Path) -> None:
    log = StatisticsLog(path, collapse_bound=1.0)
    fill(log, range(WATCH_WINDOW - 1), reward=0.0)
    with pytest.raises(CollapseError, match="over 16 steps is not a number; try"):
        fill(log, range(WATCH_WINDOW - 1, WATCH_WINDOW), reward=math.nan)


@pytest.mark.parametrize("objective", [DDO(1, 0.1), MLE(), MLE(trains_on="fakes")], ids=["ddo", "mle", "neon"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_a_run_that_diverged_is_ended_without_a_bound(path: Path, objective: DDO | MLE, rounds: int) -> None:
    log = StatisticsLog(path)
    for step in range(LOST_STEPS + 1):
        r = torch.full((4,), math.nan if step else 0.0)
        for _ in range(rounds):
            log.add(step, objective(Terms(r, r, r, r)).statistics)
    with pytest.raises(CollapseError, match=f"diverged at step {LOST_STEPS}: no log-ratio of 5 successive steps"):
        log.flush()
    assert len(read(path)) == LOST_STEPS + 1


def test_single_steps_and_samples_that_are_lost_end_no_run(path: Path) -> None:
    log, whole, lost = StatisticsLog(path), torch.zeros(4), torch.full((4,), math.nan)
    for step in range(LOST_STEPS * 3):
        real, fake = (whole, lost) if step % LOST_STEPS == 0 else (lost, lost)
        log.add(step, DDO(1, 0.1)(Terms(real, real, real, fake)).statistics)
    log.flush()


def test_a_collapse_exits_with_status_3_and_one_line(path: Path) -> None:
    @click.command()
    def train() -> None:
        fill(StatisticsLog(path, collapse_bound=0.5), range(WATCH_WINDOW), reward=-2)

    result = CliRunner().invoke(train)
    assert result.exit_code == 3
    assert result.output.startswith("Error: collapsed at step 15")
    assert result.output.count("\n") == 1
