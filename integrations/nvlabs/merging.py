"""Merging two networks of EDM or EDM2 into files that upstream's scripts read."""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from ddo_plugin import Reference, Upstream, UserError, interpolate, load_as_stored

# settings that change no output in eval(), or only its rounding
MAY_DIFFER = ("training", "dropout", "label_dropout", "use_fp16")
SAME_NUMBER = 1e-4  # constants that upstream computes in fp32 differ in their last digits between machines


def merge(
    a: Path,
    b: Path,
    outs: Mapping[Path, float],
    options: Mapping[str, Any],
    upstream: Upstream,
    beside: Mapping[str, Any] = MappingProxyType({}),
    normaliser: Callable[[nn.Module], Callable[[str, Tensor], Tensor]] = lambda _: lambda name, tensor: tensor,
) -> str:
    """Write the network of `a` with merged weights, and the entries of `beside`."""
    first, second = (load_as_stored(str(path), options, upstream) for path in (a, b))
    _check_alike(a, first, b, second)
    network, weights, others = first.network, first.network.state_dict(), second.network.state_dict()
    buffers = [name for name, _ in network.named_buffers()]
    if differing := [name for name in buffers if name in others and not _is_alike(weights[name], others[name])]:
        print(
            f"ddo: {differing[0]} ({len(differing)} buffers in all) differs, as between trainings that started from "
            f"different networks; the buffers of {a} are taken",
            file=sys.stderr,
        )
    prepare = normaliser(network)
    for out, w in outs.items():
        network.load_state_dict(interpolate(weights, others, w, buffers, prepare), strict=True, assign=True)
        with out.open("wb") as file:
            pickle.dump({"ema": network, **beside}, file)
    return f"a network of the class {first.info.class_name} with {first.info.parameters:,} parameters"


def _check_alike(a: Path, first: Reference, b: Path, second: Reference) -> None:
    """Refuse networks of other conditions, classes or settings, which their tensors may not show."""
    kinds = [f"has {n} classes" if (n := network.info.label_dim) else "is unconditional" for network in (first, second)]
    if kinds[0] != kinds[1]:
        raise UserError(f"{a} {kinds[0]}, but {b} {kinds[1]}; merge snapshots of one network")
    settings, others = dict(_settings(first.network)), dict(_settings(second.network))
    for name in [*settings, *others]:
        values = [found.get(name, "missing") for found in (settings, others)]
        if not _same(*values):
            raise UserError(
                f"{a} and {b} have different architectures: {name} is {values[0]} and {values[1]}; merge snapshots of "
                "one network"
            )


def _is_alike(one: Tensor, other: Tensor) -> bool:
    """Return whether tensors are equal up to the rounding of the less precise one."""
    return one.to(other.dtype).equal(other) or one.equal(other.to(one.dtype))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=SAME_NUMBER)
    return bool(one == other)


def _settings(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Return the class of each part and its settings: the attributes that are plain values."""
    for part, module in network.named_modules():
        yield part or "network", type(module).__name__
        for name, value in vars(module).items():
            if isinstance(value, int | float | str | tuple | list) and name not in MAY_DIFFER and name[0] != "_":
                yield f"{part}.{name}".lstrip("."), value
