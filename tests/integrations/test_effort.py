"""What the integrations say that their steps cost, against the operations of the steps counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Effort, EvaluationStep, NetworkCount, RefsetStep, RoundStep

F = 100.0  # operations of a forward pass
DRAWING, DECODING, ENCODING = 90.0, 50.0, 20.0
COUNT = NetworkCount(
    parameters=10,
    forward=F,
    kept=8.0,
    kept_once=1.0,
    sample_bytes=3,
    others={"drawing": DRAWING, "decoding": DECODING, "encoding": ENCODING},
)
NETWORK, OUT = Path("network"), Path("out")


def of(step: RefsetStep | RoundStep | EvaluationStep, gpus: int = 8) -> Effort:
    effort: Effort = plugins.manager().hook.ddo_effort(step=step, network=COUNT, gpus=gpus)
    return effort


def training(upstream: str, objective: str = "ddo", fakes: Path | None = None, **settings: object) -> RoundStep:
    return RoundStep(upstream, NETWORK, fakes, OUT, objective, 1.0, 0.1, 0, named(settings))


def refset(upstream: str, **settings: object) -> RefsetStep:
    return RefsetStep(upstream, NETWORK, OUT, 1000, 1, named(settings))


def evaluation(upstream: str, **settings: object) -> EvaluationStep:
    return EvaluationStep(upstream, NETWORK, OUT, (0, 1), named(settings))


def named(settings: dict[str, object]) -> dict[str, object]:
    return {name.replace("_", "-"): value for name, value in settings.items()}


def operations(effort: Effort) -> float:
    return sum(arithmetic.operations for arithmetic in effort.arithmetic)


@pytest.mark.parametrize(
    "step",
    [
        training("edm", fakes=OUT, duration=1.5, batch=512, tick=50, snap=1, dump=10),
        training("edm2", fakes=OUT, duration=1_500_000, batch=512, snapshot=50_000, checkpoint="512Ki"),
    ],
)
def test_a_round_of_diffusion_costs_eight_forward_passes_for_each_real_image(step: RoundStep) -> None:
    effort = of(step)
    assert operations(effort) == 8 * F * 1_500_000
    assert effort.snapshots == 30
    assert effort.memory is not None
    assert (effort.memory.share, effort.memory.images, effort.memory.per_image) == (64, 64, 16.0)


@pytest.mark.parametrize("step", [training("edm", "mle", duration=1), training("edm", "neon", fakes=OUT, duration=1)])
def test_a_control_run_of_diffusion_and_neon_cost_three(step: RoundStep) -> None:
    effort = of(step)
    assert operations(effort) == 3 * F * 1_000_000
    assert effort.memory is not None and effort.memory.per_image == 8.0


def test_a_smaller_pass_needs_less_memory() -> None:
    effort = of(training("edm2", fakes=OUT, batch=512, batch_gpu=16), gpus=4)
    assert effort.memory is not None
    assert (effort.memory.share, effort.memory.images) == (128, 16)


def test_each_ema_profile_is_another_snapshot() -> None:
    one, two = (of(training("edm2", fakes=OUT, ddo_ema=profiles)) for profiles in ("0.05", "0.05,0.1"))
    assert (one.snapshots, one.networks) == (48, 1)
    assert (two.snapshots, two.networks) == (48, 2)
    assert two.state_bytes > one.state_bytes and two.memory is not None and one.memory is not None
    assert two.memory.fixed - one.memory.fixed == 4 * COUNT.parameters


@pytest.mark.parametrize(
    "upstream, settings, evaluations",
    [
        ("edm", {}, 35),
        ("edm2", {}, 63),
        ("edm", {"steps": 10}, 19),
        ("edm", {"steps": 10, "solver": "euler"}, 10),
        ("edm2", {"steps": 12, "solver": "dpm-solver-v3"}, 12),
    ],
)
def test_a_reference_set_runs_the_network_once_for_each_evaluation_of_the_solver(
    upstream: str, settings: dict[str, object], evaluations: int
) -> None:
    effort = of(refset(upstream, **settings))
    assert operations(effort) == 1000 * evaluations * F
    assert effort.stored == 3000


@pytest.mark.parametrize("upstream", ["edm", "edm2"])
@pytest.mark.parametrize("settings, precision", [({}, "tf32"), ({"precision": "fp16"}, "half")])
def test_sampling_has_the_precision_that_was_asked_for(
    upstream: str, settings: dict[str, object], precision: str
) -> None:
    assert [arithmetic.rate.precision for arithmetic in of(refset(upstream, **settings)).arithmetic] == [precision]


def test_an_evaluation_samples_for_every_seed() -> None:
    assert operations(of(evaluation("edm", num=500))) == 2 * 500 * 35 * F
    assert operations(of(evaluation("edm2", num=500, sampler="--steps=10 --guidance 1.2"))) == 2 * 500 * 19 * F
    assert operations(of(evaluation("edm", num=500, sampler="--steps 10"))) == 2 * 500 * 19 * F


def test_states_and_snapshots_are_also_written_at_the_end() -> None:
    edm = of(training("edm", fakes=OUT, duration=1.53, tick=50, snap=1, dump=100))
    assert (edm.snapshots, edm.states) == (31, 1)
    edm2 = of(training("edm2", fakes=OUT))  # 6.4 million images
    assert (edm2.snapshots, edm2.states) == (48, 7)
    assert of(training("edm2", fakes=OUT, ddo_pause_after=3)).states == 49  # one beside each snapshot


VAR = {"ddo_iters": 10, "bs": 64, "ac": 2, "fp16": 1}


def test_a_round_of_var_with_fakes_through_pixels() -> None:
    effort = of(training("var", **VAR), gpus=4)
    networks = (1.5 * 3 + 1.5) * F
    fakes = 0.5 * (DRAWING + DECODING + ENCODING)
    assert operations(effort) == 640 * (networks + ENCODING + fakes)
    assert effort.snapshots == 3  # every 4 steps, and after the last
    assert effort.memory is not None
    assert (effort.memory.share, effort.memory.images, effort.memory.per_image) == (16, 8, 12.0)


def test_guided_fakes_of_var_run_two_branches_and_tokens_no_tokenizer() -> None:
    effort = of(training("var", **VAR, ddo_fakes_from="tokens", ddo_fakes_cfg=1.0))
    assert operations(effort) == 640 * (6 * F + ENCODING + DRAWING)


@pytest.mark.parametrize("settings", [{"ddo_fakes_precision": "amp"}, {"fp16": 0}])
def test_drawing_in_the_precision_of_the_step_saves_the_reference_a_forward(settings: dict[str, object]) -> None:
    effort = of(training("var", **{**VAR, **settings}, ddo_fakes_from="tokens"))
    assert operations(effort) == 640 * (5.5 * F + ENCODING + 0.5 * DRAWING)


def test_stored_fakes_of_var_need_no_forward_of_the_reference() -> None:
    assert operations(of(training("var", fakes=OUT, **VAR))) == 640 * ((1.5 * 3 + 1) * F + ENCODING)


def test_a_control_run_of_var() -> None:
    assert operations(of(training("var", "mle", **VAR))) == 640 * (3 * F + ENCODING)


def test_neon_of_var_tokenizes_no_real_images_and_runs_no_forward_of_the_reference() -> None:
    assert operations(of(training("var", "neon", fakes=OUT, **VAR))) == 640 * 3 * F
    assert operations(of(training("var", "neon", **VAR))) == 640 * (3 * F + DRAWING + DECODING + ENCODING)


def test_samples_of_var() -> None:
    assert operations(of(refset("var"))) == 1000 * (DRAWING + F)
    assert operations(of(refset("var", through_pixels=True))) == 1000 * (DRAWING + F + DECODING + ENCODING)
    assert operations(of(evaluation("var", num=100, cfg=1.5))) == 200 * (2 * DRAWING + DECODING)
    precisions = {arithmetic.rate.precision for arithmetic in of(evaluation("var", precision="fp16")).arithmetic}
    assert precisions == {"half"}


@pytest.mark.parametrize(
    "step", [training("edm", duration="long"), training("edm2", batch=-1), training("var", bs="many")]
)
def test_a_setting_that_is_no_number_is_refused(step: RoundStep) -> None:
    with pytest.raises(UserError, match="is not a"):
        of(step)
