"""What the steps of EDM2 compute and store, for `ddo plan`."""

from __future__ import annotations

from dataclasses import replace

from ddo_integrations.nvlabs import effort as shared
from ddo_integrations.nvlabs.effort import Files, Schedule, number
from ddo_plugin import Effort, EvaluationStep, NetworkCount, Rate, RefsetStep, RoundStep

STEPS = 32  # noise levels of a sample: the default of generate_images.py
# The share of training was measured with EDM2-S on one H200 (docs/gpu.md). The loop forbids TF32.
TRAINING = Rate("training", "fp32", 0.58)
SAMPLING = {
    "fp32": Rate("sampling", "tf32", 0.25, measured=False),
    "fp16": Rate("sampling", "half", 0.25, measured=False),
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
    return replace(trained, snapshots=trained.snapshots * profiles)


def _schedule(step: RoundStep) -> Schedule:
    """Return the schedule; the defaults are those of `configuration.py`."""
    settings = step.settings
    return Schedule(
        images=int(number(settings, "duration", 6_400_000)),
        batch=int(number(settings, "batch", 512)),
        batch_gpu=int(number(settings, "batch-gpu", 0)) or None,
        snapshot=number(settings, "snapshot", 1 << 17),
        state=number(settings, "checkpoint", 1 << 20),
    )
