"""What the steps of VAR compute and store, for `ddo plan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ddo_plugin import (
    EVALUATION_SAMPLES,
    Arithmetic,
    Effort,
    EvaluationStep,
    Memory,
    NetworkCount,
    Rate,
    RefsetStep,
    RoundStep,
    UserError,
)

Precision = Literal["tf32", "half"]
MEASURED = "measured with VAR-d16 on an H200"  # docs/gpu.md
# Few tokens are drawn at a time, so drawing is slow. In half precision it was measured before autocast kept converted
# weights, so the share is not known.
TRAINING = {"half": Rate("training", "half", 0.19, MEASURED), "tf32": Rate("training", "tf32", 0.2, MEASURED)}
DRAWING = {"half": Rate("drawing tokens", "half", 0.023), "tf32": Rate("drawing tokens", "tf32", 0.056, MEASURED)}
TOKENIZER = {
    "half": Rate("image tokenizer", "half", 0.21),
    "tf32": Rate("image tokenizer", "tf32", 0.21, MEASURED),
}
# On the GPU: network, gradients, Adam's moments, reference and the buckets in which gradients are exchanged, in fp32.
BYTES_ON_GPU, BYTES_OF_STATE, BYTES_OF_SNAPSHOT = 24, 12, 4
LEFT_OUT = ["reading of data", "communication between GPUs", "the metric's own network"]


def effort(step: RefsetStep | RoundStep | EvaluationStep, network: NetworkCount, gpus: int) -> Effort:
    """Return the effort of a step."""
    if isinstance(step, RefsetStep):
        return _reference_set(step, network)
    if isinstance(step, EvaluationStep):
        return _evaluation(step, network)
    return _training(step, network, gpus)


def _training(step: RoundStep, network: NetworkCount, gpus: int) -> Effort:
    settings = step.settings
    steps, batch, passes = _count(settings, "ddo-iters", 80), _count(settings, "bs", 768), _count(settings, "ac", 1)
    precision: Precision = "half" if settings.get("fp16") else "tf32"
    samples, share = steps * batch, max(batch // gpus, 1)  # upstream rounds, too
    compared = step.objective not in ("mle", "neon")
    stored = step.fakes is not None  # in a reference set, which has the reference's log-probabilities
    real, fakes = {"mle": (1.0, 0.0), "neon": (0.0, 1.0)}.get(step.objective, (1.0, 0.5))
    reference = 0.0 if not compared else 1.0 if stored or _scores_as_it_draws(settings, precision) else 1.5
    forward = (real + fakes) * 3 + reference  # a backward pass takes two forward passes
    arithmetic = [TRAINING[precision].of(samples * forward * network.forward)]
    if real:
        arithmetic.append(TOKENIZER["tf32"].of(samples * network.others["encoding"]))
    if fakes and not stored:
        arithmetic += _draws(settings, precision, fakes * samples, network)
    return Effort(
        arithmetic,
        snapshots=max(-(-steps // _count(settings, "ddo-save", 4)), 1),
        network_bytes=BYTES_OF_SNAPSHOT * network.parameters,
        states=3,  # ours, each of which replaces the one before, and two of upstream at the end
        state_bytes=BYTES_OF_STATE * network.parameters,
        memory=Memory(
            fixed=BYTES_ON_GPU * network.parameters + network.kept_once,
            per_image=(real + fakes) * network.kept * (1 if precision == "half" else 2),
            images=max(share // passes, 1),
            share=share,
            option="training.ac = {passes}",
        ),
        left_out=LEFT_OUT,
    )


def _scores_as_it_draws(settings: Mapping[str, Any], precision: Precision) -> bool:
    """Return whether drawing gives the log-probabilities that the loss needs, so that no forward does."""
    return settings.get("ddo-fakes-from") == "tokens" and _drawing_precision(settings, precision) == precision


def _drawing_precision(settings: Mapping[str, Any], precision: Precision) -> Precision:
    return precision if settings.get("ddo-fakes-precision") == "amp" else "tf32"


def _draws(settings: Mapping[str, Any], precision: Precision, fakes: float, network: NetworkCount) -> list[Arithmetic]:
    """Return the effort of fakes that the reference draws during training."""
    own = _drawing_precision(settings, precision)
    branches = 2 if settings.get("ddo-fakes-cfg") else 1
    drawn = [DRAWING[own].of(branches * fakes * network.others["drawing"])]
    return drawn if settings.get("ddo-fakes-from") == "tokens" else [*drawn, _through_pixels(fakes, network)]


def _reference_set(step: RefsetStep, network: NetworkCount) -> Effort:
    settings, count = step.settings, step.count
    precision = _sampling_precision(settings)
    branches = 2 if settings.get("cfg") else 1
    arithmetic = [
        DRAWING[precision].of(branches * count * network.others["drawing"]),
        TRAINING[precision].of(count * network.forward),  # for the log-probabilities
    ]
    if settings.get("through-pixels"):
        arithmetic.append(_through_pixels(count, network))
    return Effort(arithmetic, stored=count * network.sample_bytes)


def _evaluation(step: EvaluationStep, network: NetworkCount) -> Effort:
    settings = step.settings
    images = len(step.seeds) * _count(settings, "num", EVALUATION_SAMPLES)
    precision, branches = _sampling_precision(settings), 2 if settings.get("cfg") else 1
    arithmetic = [
        DRAWING[precision].of(branches * images * network.others["drawing"]),
        TOKENIZER[precision].of(images * network.others["decoding"]),
    ]
    return Effort(arithmetic, left_out=LEFT_OUT)


def _through_pixels(count: float, network: NetworkCount) -> Arithmetic:
    return TOKENIZER["tf32"].of(count * (network.others["decoding"] + network.others["encoding"]))


def _count(settings: Mapping[str, Any], name: str, default: int) -> int:
    value = settings.get(name, default)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name} = {value!r} is not a whole number >= 1, so there is no plan; correct it in the recipe")
    return value


def _sampling_precision(settings: Mapping[str, Any]) -> Precision:
    return "tf32" if settings.get("precision", "fp32") == "fp32" else "half"
