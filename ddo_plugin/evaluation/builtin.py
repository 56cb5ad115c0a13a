"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddo_plugin import hookimpl
from ddo_plugin.hooks.types import FeatureExtractor

if TYPE_CHECKING:
    pass


@hookimpl
def ddo_features(name: str) -> FeatureExtractor | None:
    if name != "inception":
        return None
    from ddo_plugin.evaluation.metrics import inception

    return inception.load()
