"""Stand-ins for the processes of digits_var: an autoencoder of patches for VAR, and a torchvision if there is none.

The autoencoder of train.py halves an image four times and has 109 M parameters, which is too much for digits of 8×8
pixels. This encoder moves the four grey values of each 2×2 patch into channels, and this decoder moves them back. The
quantiser between them, the transformer and the training are upstream's own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import after_import
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

PATCH = 2


class Encoder(nn.Module):
    """[N, 3, H, W] -> [N, Z, H/2, W/2]"""

    def __init__(self, *, z_channels: int, **_: Any):
        super().__init__()
        self.z_channels = z_channels

    def forward(self, images: Tensor) -> Tensor:
        grey = pixel_unshuffle(images.mean(1, keepdim=True), PATCH)
        return pad(grey, (0, 0, 0, 0, 0, self.z_channels - grey.shape[1]))


class Decoder(nn.Module):
    """[N, Z, h, w] -> [N, 3, 2h, 2w]"""

    def __init__(self, **_: Any):
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return pixel_shuffle(features[:, : PATCH * PATCH], PATCH).repeat(
            1, 3, 1, 1
        )  # upstream changes the result in place


def simplify(vqvae: Any) -> None:
    vqvae.Encoder, vqvae.Decoder = Encoder, Decoder


after_import.after_import("models.vqvae", simplify)
sys.path.append(str(Path(after_import.__file__).parent / "absent"))  # last, so that a real torchvision comes first
