from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest

from ddo_plugin.evaluation.measure import Features

VISION = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")


class Absent(ModuleType):
    """torchvision where there is none: torch-fidelity imports it for its data sets, which no test reads."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@pytest.fixture
def torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package, where it is installed."""
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    if importlib.util.find_spec("torchvision") is None:
        for name in VISION:
            parent, _, child = name.rpartition(".")
            monkeypatch.setitem(sys.modules, name, Absent(name))
            if parent:
                setattr(sys.modules[parent], child, sys.modules[name])
    import torch_fidelity

    return torch_fidelity


class Pixels:
    """Features, logits and spatial features that can be told by looking at an image: some of its pixels."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :4].astype(np.float32)

    def with_logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self(images), self(images)[:, :3] / 16

    def with_spatial(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return *self.with_logits(images), images.reshape(len(images), -1)[:, 4:11].astype(np.float32)


@pytest.fixture
def pixels() -> Features:
    """A feature extractor that needs no weights."""
    return Features("pixels", Pixels())
