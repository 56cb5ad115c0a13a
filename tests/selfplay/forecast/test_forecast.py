"""The sums of a forecast, with an integration whose steps cost round numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddo_plugin.hooks.types import Arithmetic, Effort, Memory, Rate
from ddo_plugin.selfplay.forecast.devices import DEVICES, GIB, Device
from ddo_plugin.selfplay.forecast.forecast import RoundForecast, Stage, processes, stages
from ddo_plugin.selfplay.forecast.lines import _fewest_passes
from ddo_plugin.selfplay.recipe.plan import Candidate, Round, Search

DEVICE = Device("test", 100 * GIB, {"fp32": 10.0, "tf32": 20.0, "half": 40.0})
REFSET, TRAINING, EVALUATION, COMPARISON = 7.0, 80.0, 3.0, 1.0  # seconds on one GPU
SNAPSHOTS = 8


def effort(seconds: float, **more: float) -> Effort:
    return Effort([Arithmetic(seconds * 5.0, Rate("step", "fp32", 0.5))], **more)  # type: ignore[arg-type]


def forecast(candidates: int, search: Search | None = None, files: int = 1) -> RoundForecast:
    pairs = tuple(Candidate("ddo", float(alpha), 0.1) for alpha in range(candidates))
    planned = Round(pairs, refset_count=10, evaluation_seeds=(0,), search=search)
    training = effort(TRAINING, snapshots=SNAPSHOTS, networks=files, network_bytes=10.0, states=4, state_bytes=25.0)
    compared, paused = None, None
    if search:  # with a state beside each snapshot
        compared, paused = effort(COMPARISON), replace(training, states=SNAPSHOTS)
    return RoundForecast(planned, DEVICE, effort(REFSET, stored=50.0), training, effort(EVALUATION), compared, paused)


SEARCH = Search(rungs=(2, 4), keep=0.3, finalists=2, evaluation_seeds=(0,))


def test_a_grid_trains_every_candidate_to_the_end() -> None:
    round_ = forecast(5)
    assert round_.stages == [Stage(5, SNAPSHOTS)]
    assert round_.gpu_seconds == REFSET + 5 * TRAINING + 40 * EVALUATION
    assert round_.elapsed(gpus=2, slots=1) == round_.gpu_seconds / 2
    assert round_.elapsed(gpus=2, slots=5) == (REFSET + TRAINING + SNAPSHOTS * EVALUATION) / 2
    assert round_.elapsed(gpus=2, slots=4) == (REFSET + 2 * TRAINING + 10 * EVALUATION) / 2  # one waits for a slot
    assert round_.one_candidate == REFSET + TRAINING + SNAPSHOTS * EVALUATION


def test_a_search_pays_for_the_snapshots_that_its_candidates_reach() -> None:
    round_ = forecast(10, SEARCH)
    assert round_.stages == [Stage(10, 2), Stage(3, 2), Stage(1, 4)]
    assert (round_.networks, round_.trainings, round_.evaluations) == (30, 30 / 8, 2)
    assert round_.gpu_seconds == REFSET + 30 / 8 * TRAINING + 30 * COMPARISON + 2 * EVALUATION
    wide = REFSET + TRAINING + (2 + 1 + 1) * COMPARISON + EVALUATION  # the last candidate trains to the end
    assert round_.elapsed(gpus=1, slots=10) == pytest.approx(wide)


def test_rungs_behind_the_end_stop_nobody() -> None:
    search = Search(rungs=(2, 8, 20), keep=0.5, finalists=100, evaluation_seeds=(0,))
    planned = Round((Candidate("ddo", 1.0, 0.1),) * 4, 0, (0,), search=search)
    assert stages(planned, 8) == [Stage(4, 2), Stage(2, 6)]


def test_disk_within_a_round_and_after_it() -> None:
    round_ = forecast(5)
    assert round_.disk == 50 + 5 * 100 + 40 * 10
    assert round_.left("best") == 50 + 10
    assert round_.left(3) == 50 + 30
    assert round_.left("all") == round_.disk


def test_a_search_has_a_state_beside_each_snapshot_up_to_the_last_rung() -> None:
    round_ = forecast(10, SEARCH)
    assert round_.states == 10 * 2 + 3 * 2 + 4 * 4 / 8
    assert round_.disk == 50 + round_.states * 25 + 30 * 10
    assert round_.left("best") == 50 + 10


def test_rungs_count_snapshots_whatever_the_number_of_their_files() -> None:
    one, two = forecast(10, SEARCH), forecast(10, SEARCH, files=2)
    assert (two.stages, two.trainings) == (one.stages, one.trainings)
    assert (two.networks, two.evaluations) == (60, 2)
    assert two.gpu_seconds == one.gpu_seconds + 30 * COMPARISON


@pytest.mark.parametrize(
    "torchrun, expected",
    [
        ("", 1),
        ("--standalone --nproc_per_node=8", 8),
        ("--nproc-per-node 4 --nnodes=2", 8),
        ("--nnodes=1:3 --nproc_per_node=2", None),
        ("--nproc_per_node=gpu", None),
        ("--standalone", None),
    ],
)
def test_the_number_of_processes(torchrun: str, expected: int | None) -> None:
    assert processes(torchrun) == expected


def test_the_largest_pass_divides_the_share_of_the_batch() -> None:
    def memory(fixed: float) -> Memory:
        return Memory(
            fixed=fixed * GIB, per_image=10 * GIB, images=24, share=24, option="training.batch-gpu = {images}"
        )

    assert _fewest_passes(memory(0), DEVICE) == 3  # 85 GiB hold 8 images of 10 GiB
    assert _fewest_passes(memory(15), DEVICE) == 4  # 7 images fit, and 6 divide 24
    assert _fewest_passes(memory(80), DEVICE) is None


def test_peaks_rise_from_fp32_to_half() -> None:
    for device in DEVICES.values():
        assert device.peaks["fp32"] < device.peaks["tf32"] < device.peaks["half"]
