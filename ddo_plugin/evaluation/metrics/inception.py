"""Features of the Inception-v3 network that FID uses, from torch-fidelity. The weights are never downloaded."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddo_plugin.base.environment import device_name
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.evaluation.metrics.device import device, full_precision

NAME = "inception"
VARIABLE = "DDO_INCEPTION"  # path of the weights, if they are not in torch.hub's folder
FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
DIGEST = "6726825d"  # the end of the published file's name is the beginning of its sha256
LAYERS = ["2048", "logits_unbiased"]
SPATIAL_CHANNELS = 7  # OpenAI's evaluator keeps the first 7 channels of `mixed_6/conv`


class Inception:
    """A feature extractor with 2048 features, logits without bias for the Inception Score, and features for sFID.

    The features for sFID are those of OpenAI's evaluator: 7 channels of 17×17 positions, flattened in this order:
    row, column, channel. Its layer `mixed_6/conv` is the first part of the block that torch-fidelity calls Mixed_6d.
    """

    def __init__(self, weights: Path):
        self._network = _network(weights).to(device())
        self._network.Mixed_6d.register_forward_hook(self._keep_spatial)
        self._spatial = torch.empty(0)
        self.description: Mapping[str, Any] = {
            "weights": str(weights),
            "sha256": sha256_file(weights),
            "device": device_name(device()),
        }

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.with_spatial(images)[0]

    def with_logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.with_spatial(images)[:2]

    @torch.inference_mode()
    def with_spatial(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device())
        with full_precision():
            features, logits = self._network(pixels.expand(-1, 3, -1, -1))
        return features.cpu().numpy(), logits.cpu().numpy(), self._spatial.cpu().numpy()

    def _keep_spatial(self, _block: Any, _inputs: Any, output: torch.Tensor) -> None:
        self._spatial = output[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)


def load() -> Inception:
    """Return the extractor with the weights on this machine, or refuse with the place where they are missing."""
    path = weights_path()
    if not path.is_file():
        raise UserError(
            f"features {NAME!r} need weights, but there are none at {path}, and they are not downloaded automatically; "
            f"download {URL} to this path, or set {VARIABLE} to its path"
        )
    if path.name == FILE and not sha256_file(path).startswith(DIGEST):
        raise UserError(f"{path} is damaged: its sha256 does not begin with {DIGEST}; download {URL} again")
    return Inception(path)


def weights_path() -> Path:
    """Return the path of the weights: $DDO_INCEPTION, or the place where torch-fidelity would download them to."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def _network(weights: Path) -> Any:
    """Build the network from a copy with tensors only, because torch-fidelity would run code from the file."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(
            f"features {NAME!r} need torch-fidelity, but importing it failed ({error}): "
            "pip install 'ddo-plugin[metrics]'"
        ) from None
    copy = io.BytesIO()
    try:
        torch.save(torch.load(weights, map_location="cpu", weights_only=True), copy)
        copy.seek(0)
        return FeatureExtractorInceptionV3(NAME, LAYERS, feature_extractor_weights_path=copy)
    except Exception as error:  # another kind of file can raise anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{weights} holds no weights of torch-fidelity's Inception network ({reason}); download {URL}"
        ) from None
