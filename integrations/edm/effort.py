"""What the steps of EDM compute and store, for `ddo plan`."""

from __future__ import annotations

from ddo_integrations.nvlabs import effort as shared
from ddo_integrations.nvlabs.effort import Files, Schedule, number
from ddo_plugin import Effort, EvaluationStep, NetworkCount, Rate, RefsetStep, RoundStep

STEPS = 18  # noise levels of a sample: the default of generate.py
# Measured with DDPM++ on one H200 (docs/gpu.md). The training loop forbids TF32; the sampling script does not.
TRAINING = Rate("training", "fp32", 0.63)
SAMPLING = {
    "fp32": Rate("sampling", "tf32", 0.25),
    "fp16": Rate("sampling", "half", 0.25, measured=False),
}
# A snapshot holds the EMA, a state the network and Adam's moments. On the GPU are network, gradients, moments, EMA,
# reference and the buckets in which gradients are exchanged. All are in fp32.
FILES = Files(snapshot=4, state=12, on_gpu=28)


def effort(step: RefsetStep | RoundStep | EvaluationStep, network: NetworkCount, gpus: int) -> Effort:
    """Return the effort of a step."""
    if isinstance(step, RefsetStep):
        return shared.reference_set(step, network, STEPS, SAMPLING)
    if isinstance(step, EvaluationStep):
        return shared.evaluation(step, network, STEPS, SAMPLING)
    return shared.training(step, network, gpus, _schedule(step), TRAINING, FILES)


def _schedule(step: RoundStep) -> Schedule:
    """Return the schedule; the defaults are those of `configuration.py` and upstream."""
    settings = step.settings
    tick = 1000 * number(settings, "tick", 50)
    return Schedule(
        images=int(1e6 * number(settings, "duration", 1.5)),
        batch=int(number(settings, "batch", 512)),
        batch_gpu=int(number(settings, "batch-gpu", 0)) or None,
        snapshot=tick * number(settings, "snap", 1),
        state=tick * number(settings, "dump", 10),
    )
