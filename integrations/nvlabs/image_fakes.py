"""Fakes as upstream's own tools write them: a folder or zip of images, with a dataset.json if there are classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddo_integrations.nvlabs.dnnlib import construct_class_by_name
from ddo_plugin import Reference, UserError, parsing

DATASET = "training.dataset.ImageFolderDataset"


class ImageFakes:
    """Draws with replacement from torch's global generator. Each image is decoded once and then kept in memory."""

    def __init__(self, path: Path, dataset: Any):
        self.dataset = dataset
        self.shape: tuple[int, ...] = tuple(dataset.image_shape)
        self.classes: int = dataset.label_dim
        self.description: Mapping[str, Any] = {"images": str(path), "count": len(dataset), "reference_sha256": None}

    def draw(self, count: int) -> tuple[Tensor, Tensor | None]:
        rows = torch.randint(len(self.dataset), (count,))
        with parsing(f"--ddo-fakes={self.description['images']}: an image cannot be read"):
            drawn = [self.dataset[int(row)] for row in rows]
        images = torch.stack([torch.from_numpy(image) for image, _ in drawn])
        if not self.classes:
            return images, None
        return images, torch.stack([torch.from_numpy(label) for _, label in drawn]).argmax(1)


def open_images(path: Path, reference: Reference) -> ImageFakes | None:
    """Open a folder or zip with upstream's dataset class, with labels if the reference has classes."""
    if not (path.is_dir() or path.suffix == ".zip"):
        return None
    with parsing(f"--ddo-fakes={path} cannot be read as images"):
        dataset = construct_class_by_name(
            class_name=DATASET, path=str(path), use_labels=reference.info.label_dim > 0, cache=True
        )
        if reference.info.label_dim and not dataset.has_labels:
            raise UserError(
                f"--ddo-fakes={path} has no labels (generate.py writes none), but the reference is class-conditional; "
                "use `ddo refset make`, or add the dataset.json that dataset_tool.py writes"
            )
        return ImageFakes(path, dataset)
