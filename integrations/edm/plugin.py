"""The hooks of the EDM integration."""

from __future__ import annotations

from collections.abc import Sequence

from ddo_plugin import hookimpl
from ddo_plugin.records import Upstream


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [Upstream("edm", "EDM (NVlabs/edm)", "train.py")]
