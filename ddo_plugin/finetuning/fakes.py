"""The batch of a training step: real samples, then as many fakes; or fakes alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ddo_plugin.hooks.types import Fakes


def with_fakes(fakes: Fakes | None, real: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Append as many fakes as there are real samples. Both then share a forward pass and augmentation.

    `real` is scaled to the network's input. Fakes in uint8 are scaled here; others (latents) already are. `labels` are
    one-hot [N, K], or [N, 0] without classes.
    """
    if fakes is None:
        return real, labels
    drawn, conditions = fakes_alone(fakes, real, labels)
    return torch.cat([real, drawn]), torch.cat([labels, conditions])


def fakes_alone(fakes: Fakes, real: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return as many fakes as there are real samples, and their labels, in the same form and on the same device."""
    drawn, numbers = fakes.draw(len(real))
    drawn = to_device(drawn, real.device)
    scaled = drawn.to(torch.float32) / 127.5 - 1 if drawn.dtype == torch.uint8 else drawn.to(torch.float32)
    if numbers is None:
        return scaled, labels
    return scaled, one_hot(to_device(numbers, labels.device), labels.shape[1]).to(labels.dtype)


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """Copy samples to the device of the training step, without waiting until a GPU has finished its work.

    A plugin's fakes may be on a GPU already, and only memory of the CPU can be pinned.
    """
    if device.type == "cuda" and drawn.device.type == "cpu":
        return drawn.pin_memory().to(device, non_blocking=True)
    return drawn.to(device)
