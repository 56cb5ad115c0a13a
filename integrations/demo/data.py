"""scikit-learn's digits as uint8 images, and the classifier in whose features distances are measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_folder
from ddo_plugin.base.progress import progress

CLASSES, CHANNELS, RESOLUTION = 10, 1, 8
CLASSIFIER_STEPS, CLASSIFIER_BATCH = 400, 128


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


def _train_classifier(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[nn.Sequential, float]:
    """Train on noisy digits; returns the network and its accuracy on the clean ones."""
    torch.manual_seed(seed)
    network, x, y = classifier(), to_unit(torch.from_numpy(images)), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    with progress("classifier", CLASSIFIER_STEPS) as bar:
        for _ in range(CLASSIFIER_STEPS):
            rows = torch.randint(len(x), (CLASSIFIER_BATCH,))
            noisy = x[rows] + 0.1 * torch.randn(len(rows), *x.shape[1:])
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(noisy), y[rows]).backward()
            optimizer.step()
            bar.update()
    with torch.no_grad():
        return network, float((network(x).argmax(1) == y).float().mean())


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(out: Path, seed: int) -> None:
    """Prepare the digits: images, labels, classifier, and the token model's codes."""
    from ddo_integrations.demo.tokens import Tokenizer

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the demo needs scikit-learn, which holds the digits: pip install 'ddo-plugin[demo]'") from None
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    network, accuracy = _train_classifier(images, labels, seed)
    with atomic_folder(out) as folder:
        np.save(folder / "images.npy", images)
        np.save(folder / "labels.npy", labels)
        save_file(network.state_dict(), folder / "classifier.safetensors")
        save_file(
            Tokenizer().fit(to_unit(torch.from_numpy(images)), seed).state_dict(), folder / "tokenizer.safetensors"
        )
        (folder / "about.json").write_text(json.dumps({"seed": seed, "classifier_accuracy": accuracy}))


if __name__ == "__main__":
    main()
