"""scikit-learn's digits as uint8 images, and the classifier in whose features distances are measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch import Tensor, nn


CLASSES, CHANNELS, RESOLUTION = 10, 1, 8


@dataclass(frozen=True)
class Digits:
    """A prepared data folder."""

    path: Path

    @cached_property
    def images(self) -> np.ndarray:
        """uint8 [1797, 1, 8, 8]"""
        return np.load(self.path / "images.npy")

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [1797]"""
        return np.load(self.path / "labels.npy")

    @cached_property
    def features(self) -> ClassifierFeatures:
        network = classifier()
        network.load_state_dict(load_file(self.path / "classifier.safetensors"))
        return ClassifierFeatures(network)


def to_unit(images: Tensor) -> Tensor:
    """uint8 -> float in [-1, 1], as EDM does it."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8, as EDM's generate.py does it."""
    return (images * 127.5 + 128).clip(0, 255).to(torch.uint8)


def classifier() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )


class ClassifierFeatures:
    """The classifier as a feature extractor: what its last layer sees, and what that makes of it."""

    def __init__(self, network: nn.Sequential):
        self._body, self._head = network[:-1].eval(), network[-1].eval()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.with_logits(images)[0]

    @torch.no_grad()
    def with_logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = self._body(to_unit(torch.from_numpy(images)))
        return features.numpy(), self._head(features).numpy()
