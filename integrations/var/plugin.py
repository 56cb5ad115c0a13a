"""The hooks of the VAR integration."""

from __future__ import annotations

from collections.abc import Sequence

from ddo_plugin import hookimpl
from ddo_plugin.records import Upstream

LANDMARKS = {
    "train.py": r"^def main_training\(",
    "trainer.py": r"^class VARTrainer\b",
    "models/var.py": r"^class VAR\b",
    "utils/arg_util.py": r"^class Args\b",
}
# The training script imports these inside functions, so that a run would end after minutes.
NEEDS = {"huggingface_hub": "models/var.py", "tensorboard": "utils/misc.py"}


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [Upstream("var", "VAR (FoundationVision/VAR)", "train.py", LANDMARKS, needs=NEEDS)]
