"""The hooks of the EDM2 integration."""

from __future__ import annotations

from collections.abc import Sequence

from ddo_plugin import hookimpl
from ddo_plugin.records import Upstream


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [Upstream("edm2", "EDM2 (NVlabs/edm2)", "train_edm2.py")]
