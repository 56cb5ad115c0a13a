"""Sessions of DDO in the process of a speed part, as a training script would start them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.measure import DEVICE
from ddo_plugin.base.files import sha256_file
from ddo_plugin.base.rank_group import Ranks
from ddo_plugin.finetuning.session import Session, prepare_session
from ddo_plugin.hooks import plugins
from ddo_plugin.sampling.refsets import make as refset


def start(upstream: str, folder: Path, *arguments: str) -> Session:
    """Prepare a session with these arguments and the defaults of all other options."""
    offered = list(plugins.collect(plugins.manager().hook.ddo_options(upstream=upstream)))
    options = click.Command(upstream, params=offered).make_context(upstream, list(arguments)).params
    return prepare_session(upstream, folder, options)


@dataclass
class Noise:
    """A generator of noise, for reference sets whose content does not matter."""

    network: Path
    shape: tuple[int, ...]
    dtype: str
    classes: int
    kind: Literal["images", "tokens"] = "images"
    batch: int = 64

    def __post_init__(self) -> None:
        self.device = torch.device("cpu")
        self.reference = {"source": str(self.network), "sha256": sha256_file(self.network)}
        self.settings: dict[str, Any] = {"name": "noise"}

    def sample(self, streams: Any, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        assert labels is not None
        shape = (len(labels), *self.shape)
        return (torch.randn(shape) if self.dtype == "float32" else torch.randint(256, shape).to(torch.uint8)), labels

    def images(self, samples: Tensor) -> Tensor:
        return samples


def make_fakes(network: Path, shape: tuple[int, ...], classes: int, out: Path, count: int = 512) -> Path:
    """Write a reference set of noise that names this network as its reference."""
    source = Noise(network, shape, "uint8" if shape[0] == 3 else "float32", classes)
    labels = np.arange(count) % classes
    refset.make(source, out, Ranks(), count=count, seed=0, labels=labels, batch=source.batch)
    return out


def parameters(network: torch.nn.Module) -> int:
    """Return the number of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def on_device(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors on the device of the benchmark."""
    return [tensor.to(DEVICE) for tensor in tensors]
