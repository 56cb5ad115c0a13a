"""The two model families of the demo behind one interface, and their snapshot files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ddo_integrations.demo.data import Digits
from ddo_integrations.demo.diffusion import DiffusionFamily
from ddo_integrations.demo.tokens import TokensFamily
from ddo_plugin import Fakes, SampleGenerators, SampleKind, Terms, UserError, atomic_write, check_finite, interpolate


class Family(Protocol):
    """A likelihood model of the digits: its training samples, its log-likelihood, and its sampler."""

    kind: SampleKind
    sampler: Mapping[str, Any]
    clip_grad_norm: float | None

    def network(self, dropout: float = 0.0) -> nn.Module: ...
    def real_samples(self) -> Tensor: ...
    def optimizer(self, network: nn.Module, lr: float) -> torch.optim.Optimizer: ...
    def terms(
        self,
        network: nn.Module,
        reference: nn.Module | None,
        real: Tensor,
        labels: Tensor,
        fakes: Fakes | None,
        paired: bool = False,
    ) -> Terms: ...
    def log_likelihood(self, network: nn.Module, samples: Tensor, labels: Tensor) -> Tensor: ...
    def sample(self, network: nn.Module, labels: Tensor, generators: SampleGenerators) -> Tensor: ...
    def to_images(self, samples: Tensor) -> Tensor: ...


def build(name: str, data: Path) -> Family:
    """Return the family of this name for a prepared data folder."""
    digits = Digits(data)
    return DiffusionFamily(digits) if name == "diffusion" else TokensFamily(digits)


def save_snapshot(network: nn.Module, family: str, path: Path) -> None:
    """Write a network to a safetensors file that names its family."""
    with atomic_write(path) as file:
        file.write(_bytes(network.state_dict(), family))


def merge(a: Path, b: Path, outs: Mapping[Path, float]) -> str:
    """Write snapshots with the merged weights of two networks."""
    (family, weights), (other, others) = _load_state(a), _load_state(b)
    if family != other:
        raise UserError(
            f"{a} is a snapshot of the family '{family}', and {b} of '{other}'; merge networks of one family"
        )
    for path, state in ((a, weights), (b, others)):
        check_finite(state, path)
    for out, w in outs.items():
        out.write_bytes(_bytes(interpolate(weights, others, w), family))
    return f"a network of the family '{family}'"


def load_snapshot(path: Path, family_name: str, family: Family) -> nn.Module:
    """Load the network of a snapshot, without dropout."""
    made_for, state = _load_state(path)
    if made_for != family_name:
        raise UserError(f"{path} is a snapshot of the family '{made_for}', not '{family_name}'")
    network = family.network()
    network.load_state_dict(state)
    return network.eval()


def _bytes(state: Mapping[str, Tensor], family: str) -> bytes:
    return save(dict(state), metadata={"family": family})


def _load_state(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the family and the tensors of a snapshot."""
    try:
        with safe_open(path, "pt") as file:
            family = (file.metadata() or {}).get("family", "")
        return family, load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a snapshot of the demo ({error})") from None
