"""Features of DINOv2, from its authors' code in a folder of torch.hub. Neither code nor weights are downloaded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddo_plugin.base.environment import device_name
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.evaluation.metrics.device import device, full_precision

NAME = "dinov2"
VARIABLE = "DDO_DINOV2"  # a folder of torch.hub, if it is not the usual one
MODEL = "dinov2_vitl14"
CODE = "facebookresearch_dinov2_main"
WEIGHTS = f"checkpoints/{MODEL}_pretrain.pth"
SIDE = 224  # pixels
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, by channel


class DinoV2:
    """A feature extractor with the 1024 features of the class token of ViT-L/14."""

    def __init__(self, folder: Path):
        self._network = _network(folder).to(device())
        self._mean, self._deviation = (
            torch.tensor(values, device=device())[:, None, None] for values in (MEAN, DEVIATION)
        )
        self.description: Mapping[str, Any] = {
            "weights": str(folder / WEIGHTS),
            "sha256": sha256_file(folder / WEIGHTS),
            "device": device_name(device()),
        }

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device(), torch.float32).expand(-1, 3, -1, -1)
        resized = torch.nn.functional.interpolate(pixels, size=(SIDE, SIDE), mode="bicubic", antialias=True)
        with full_precision():
            return self._network((resized / 255 - self._mean) / self._deviation).cpu().numpy()


def load() -> DinoV2:
    """Return the extractor with code and weights of this machine, or refuse with the place where they are missing."""
    folder = Path(os.environ.get(VARIABLE) or torch.hub.get_dir())
    for name in (CODE, WEIGHTS):
        if not (folder / name).exists():
            raise UserError(
                f"features {NAME!r} need {folder / name}, which is missing, and nothing is downloaded automatically; "
                f"call torch.hub.load('facebookresearch/dinov2:main', '{MODEL}') once, or set {VARIABLE} to a folder "
                f"with {CODE} and {WEIGHTS}"
            )
    return DinoV2(folder)


def _network(folder: Path) -> torch.nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "xFormers is not available")
            network = torch.hub.load(str(folder / CODE), MODEL, source="local", pretrained=False)
        network.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    except Exception as error:  # other code or another kind of file can raise anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder / CODE} and {folder / WEIGHTS} do not make a DINOv2 network ({reason}); download both again"
        ) from None
    return network.eval().requires_grad_(False)
