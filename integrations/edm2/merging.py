"""Merging two networks of EDM2, whose layers ignore the norms of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddo_integrations.edm2.encoders import encoder_entry
from ddo_integrations.edm2.networks import normaliser
from ddo_integrations.nvlabs import merging
from ddo_plugin import Upstream, describe_pickle


def merge(a: Path, b: Path, outs: Mapping[Path, float], options: Mapping[str, Any], upstream: Upstream) -> str:
    """Write merged networks with the encoder of `a`.

    The weights are normalised first. A stored average is shorter than what training made of it, and without this w
    would mean something else in each layer.
    """
    encoder = encoder_entry(a, describe_pickle(a))
    return merging.merge(a, b, outs, options, upstream, beside=encoder, normaliser=normaliser)
