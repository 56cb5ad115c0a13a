"""Preparing the demo's data folder: the digits of scikit-learn, a classifier, and the token codes."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ddo_integrations.demo.data import classifier, to_unit
from ddo_integrations.demo.tokens import Tokenizer
from ddo_plugin import Place, UserError, atomic_folder, in_one_line, interruptible, progress

CLASSIFIER_STEPS, CLASSIFIER_BATCH = 400, 128


def _train_classifier(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[nn.Sequential, float]:
    """Train a classifier on noisy digits, and return it with its accuracy on the clean digits."""
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
@click.option("--out", type=Place(file_okay=False), required=True, help="Folder to create.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@interruptible()
@in_one_line()
def main(out: Path, seed: int) -> None:
    """Write images, labels, classifier and token codes to a folder."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the demo needs the digits of scikit-learn: pip install 'ddo-plugin[demo]'") from None
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
