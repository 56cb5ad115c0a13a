"""The hooks of the VAR integration."""

from __future__ import annotations

from collections.abc import Sequence

from ddo_plugin import hookimpl
from ddo_plugin.records import Upstream


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [Upstream("var", "VAR (FoundationVision/VAR)", "train.py")]
