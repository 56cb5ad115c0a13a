"""Features of Inception-v3 as the FID knows it, by torch-fidelity; its weights are looked for and never downloaded."""

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
VARIABLE = "DDO_INCEPTION"  # the weight file, where it is not where torch.hub keeps it
FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
DIGEST = "6726825d"  # the sha256 of the published file begins with what its name ends with
LAYERS = ["2048", "logits_unbiased"]


class Inception:
    """A feature extractor: 2048 features, and logits without bias as the Inception Score has always taken them."""

    def __init__(self, weights: Path):
        self._network = _network(weights).to(device())
        self.description: Mapping[str, Any] = {
            "weights": str(weights),
            "sha256": sha256_file(weights),
            "device": device_name(device()),
        }

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.with_logits(images)[0]

    @torch.inference_mode()
    def with_logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device())
        with full_precision():
            features, logits = self._network(pixels.expand(-1, 3, -1, -1))
        return features.cpu().numpy(), logits.cpu().numpy()


def load() -> Inception:
    """The extractor with the weights of this machine; a clear line where they are not there."""
    path = weights_path()
    if not path.is_file():
        raise UserError(
            f"features {NAME!r} need weights, which are not at {path}, and nothing is downloaded unasked; put {URL} "
            f"there, or set {VARIABLE} to where it is"
        )
    if path.name == FILE and not sha256_file(path).startswith(DIGEST):
        raise UserError(f"{path} is damaged: its sha256 does not begin with {DIGEST}; get {URL} again")
    return Inception(path)


def weights_path() -> Path:
    """Where the weights are looked for: $DDO_INCEPTION, else where torch-fidelity itself would put them."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def _network(weights: Path) -> Any:
    """torch-fidelity would unpickle the file, which is a program; it gets a copy of what is no more than weights."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(
            f"features {NAME!r} need torch-fidelity, which cannot be imported ({error}): "
            "pip install 'ddo-plugin[metrics]'"
        ) from None
    copy = io.BytesIO()
    try:
        torch.save(torch.load(weights, map_location="cpu", weights_only=True), copy)
        copy.seek(0)
        return FeatureExtractorInceptionV3(NAME, LAYERS, feature_extractor_weights_path=copy)
    except Exception as error:  # a file of something else fails in many ways
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{weights} holds no weights of torch-fidelity's Inception ({reason}); get {URL}") from None
