"""The hooks of the EDM2 integration."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import click

from ddo_plugin import hookimpl
from ddo_plugin.options import finetuning_options
from ddo_plugin.records import Upstream

LANDMARKS = {
    "train_edm2.py": r"^def setup_training_config\(",
    "training/networks_edm2.py": r"^class Precond\b",
    "training/phema.py": r"^class PowerFunctionEMA\b",
    "training/training_loop.py": r"^class EDM2Loss\b",
}
PATCHES = files("ddo_patches")


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [
        Upstream(
            "edm2", "EDM2 (NVlabs/edm2)", "train_edm2.py", LANDMARKS, PATCHES / "edm2.patch", PATCHES / "edm2.json"
        )
    ]


@hookimpl
def ddo_options(upstream: str) -> Sequence[click.Option]:
    return finetuning_options(alpha=4.0, beta=0.05) if upstream == "edm2" else []
