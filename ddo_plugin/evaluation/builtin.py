"""The feature extractors that are built in, as a plugin like the others."""

from __future__ import annotations

from ddo_plugin import hookimpl
from ddo_plugin.hooks.types import FeatureExtractor


@hookimpl
def ddo_features(name: str) -> FeatureExtractor | None:
    if name == "inception":
        from ddo_plugin.evaluation.metrics import inception

        return inception.load()
    if name == "dinov2":
        from ddo_plugin.evaluation.metrics import dinov2

        return dinov2.load()
    return None
