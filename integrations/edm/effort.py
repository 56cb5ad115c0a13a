"""What the steps of EDM compute and store, for `ddo plan`."""

from __future__ import annotations

import math

from ddo_integrations.nvlabs import effort as shared
from ddo_integrations.nvlabs.effort import Files, Schedule, number
from ddo_plugin import Effort, EvaluationStep, NetworkCount, Rate, RefsetStep, RoundStep

STEPS = 18  # noise levels of a sample: the default of generate.py
MEASURED = "measured with DDPM++ on an H200"  # docs/gpu.md
# The training loop forbids TF32; the sampling script does not.
TRAINING = Rate("training", "fp32", 0.63, MEASURED)
SAMPLING = {
    "fp32": Rate("sampling", "tf32", 0.25, MEASURED),
    "fp16": Rate("sampling", "half", 0.25),
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
    duration, snap = (6, 10) if step.objective == "neon" else (1.5, 1)
    kimg, tick = 1000 * number(settings, "duration", duration), number(settings, "tick", 50)
    snap, dump = number(settings, "snap", snap), number(settings, "dump", 10)
    if "ddo-pause-after" in settings:
        dump = snap  # a paused training resumes from any snapshot
    return Schedule(
        images=int(1000 * kimg),
        batch=int(number(settings, "batch", 512)),
        batch_gpu=int(number(settings, "batch-gpu", 0)) or None,
        snapshots=_times(kimg, tick * snap),
        states=_times(kimg, tick * dump),
    )


def _times(kimg: float, interval: float) -> int:
    """Return how often the loop writes a file. It also writes it at the end."""
    return max(math.ceil(round(kimg / interval, 6)), 1) if interval else 1
