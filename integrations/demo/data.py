"""scikit-learn's digits as uint8 images, and the classifier whose features the Fréchet distances use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

CLASSES, CHANNELS, RESOLUTION = 10, 1, 8


@dataclass(frozen=True)
class Digits:
    """The digits in a data folder that `prepare.py` wrote."""

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
        """The stored classifier as a feature extractor."""
        network = classifier()
        network.load_state_dict(load_file(self.path / "classifier.safetensors"))
        return ClassifierFeatures(network)


def to_unit(images: Tensor) -> Tensor:
    """Convert uint8 images to floats in [-1, 1], as EDM does."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Convert floats in [-1, 1] to uint8 images, as EDM's generate.py does."""
    return (images * 127.5 + 128).clip(0, 255).to(torch.uint8)


def classifier() -> nn.Sequential:
    """Return a small untrained classifier of the digits."""
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
    """The classifier as a feature extractor: the features are the inputs of its last layer."""

    def __init__(self, network: nn.Sequential):
        self._body, self._head = network[:-1].eval(), network[-1].eval()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the features [N, 64] of uint8 images."""
        return self.with_logits(images)[0]

    @torch.no_grad()
    def with_logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features [N, 64] and the class logits [N, 10] of uint8 images."""
        features = self._body(to_unit(torch.from_numpy(images)))
        return features.numpy(), self._head(features).numpy()
