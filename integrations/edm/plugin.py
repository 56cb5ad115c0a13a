"""The hooks of the EDM integration."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import click

from ddo_plugin import hookimpl
from ddo_plugin.options import finetuning_options
from ddo_plugin.records import Upstream

LANDMARKS = {
    "train.py": r"^def main\(",
    "training/loss.py": r"^class EDMLoss\b",
    "training/networks.py": r"^class EDMPrecond\b",
    "training/training_loop.py": r"^def training_loop\(",
}
PATCHES = files("ddo_patches")


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [Upstream("edm", "EDM (NVlabs/edm)", "train.py", LANDMARKS, PATCHES / "edm.patch", PATCHES / "edm.json")]


@hookimpl
def ddo_options(upstream: str) -> Sequence[click.Option]:
    return finetuning_options(alpha=4.0, beta=0.05) if upstream == "edm" else []
