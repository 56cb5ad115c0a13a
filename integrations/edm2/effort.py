"""What the steps of EDM2 compute and store, for `ddo plan`."""

from __future__ import annotations

import math
from dataclasses import replace

from ddo_integrations.nvlabs import effort as shared
from ddo_integrations.nvlabs.effort import Files, Schedule, images
from ddo_plugin import Effort, EvaluationStep, NetworkCount, Rate, RefsetStep, RoundStep

STEPS = 32  # noise levels of a sample: the default of generate_images.py
# docs/gpu.md. The training loop forbids TF32.
TRAINING = Rate("training", "fp32", 0.58, "measured with EDM2-S on an H200")
SAMPLING = {
    "fp32": Rate("sampling", "tf32", 0.25),
    "fp16": Rate("sampling", "half", 0.25),
}
AUTOENCODER = "the autoencoder of networks for latents"


def effort(step: RefsetStep | RoundStep | EvaluationStep, network: NetworkCount, gpus: int) -> Effort:
    """Return the effort of a step."""
    if isinstance(step, RefsetStep):
        return shared.reference_set(step, network, STEPS, SAMPLING)
    if isinstance(step, EvaluationStep):
        judged = shared.evaluation(step, network, STEPS, SAMPLING)
        return replace(judged, left_out=[*judged.left_out, AUTOENCODER])
    profiles = len(str(step.settings.get("ddo-ema", "0.05")).split(","))
    # Snapshots hold one EMA in fp16 each, a state the network, all EMAs and Adam's moments in fp32. On the GPU are also
    # the gradients, the reference and the buckets in which gradients are exchanged.
    files = Files(snapshot=2, state=12 + 4 * profiles, on_gpu=24 + 4 * profiles)
    trained = shared.training(step, network, gpus, _schedule(step), TRAINING, files)
    return replace(trained, networks=profiles)


def _schedule(step: RoundStep) -> Schedule:
    """Return the schedule; the defaults are those of `configuration.py`."""
    settings = step.settings
    duration = images(settings, "duration", 6_400_000)
    snapshot, state = images(settings, "snapshot", 1 << 17), images(settings, "checkpoint", 1 << 20)
    if "ddo-pause-after" in settings:
        state = snapshot  # a paused training resumes from any snapshot
    return Schedule(
        images=duration,
        batch=images(settings, "batch", 512),
        batch_gpu=images(settings, "batch-gpu", 0) or None,
        snapshots=max(duration // snapshot, 1) if snapshot else 1,
        states=math.ceil(duration / state) if state else 0,  # the loop also writes one at the end
    )
