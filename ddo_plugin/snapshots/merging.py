"""Interpolates and extrapolates weights: θ = θ_a + w·(θ_b − θ_a)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError


def interpolate(
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    w: float,
    fixed: Collection[str] = (),
    prepare: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
) -> dict[str, Tensor]:
    """Return a + w·(b − a), computed in float64 and rounded once, to the more precise dtype of the two.

    w = 0 and w = 1 return the tensors of `a` and `b` themselves. Otherwise, tensors that hold no floating-point numbers
    and those named in `fixed` (buffers) are taken from `a`, and the others pass through `prepare` first, in float64.
    """
    if not math.isfinite(w):
        raise UserError(f"w={w} is not a finite number")
    _check_same(a, b)
    if w in (0, 1):
        return dict(b if w else a)
    merged = dict(a)
    for name, tensor in a.items():
        if tensor.is_floating_point() and name not in fixed:
            start, end = prepare(name, tensor.double()), prepare(name, b[name].double())
            merged[name] = (start + w * (end - start)).to(torch.promote_types(tensor.dtype, b[name].dtype))
            _check_finite(name, merged[name], w)
    return merged


def _check_finite(name: str, merged: Tensor, w: float) -> None:
    if not merged.isfinite().all():
        raise UserError(
            f"w={w}: {name} of the merged network is not finite in {_short(merged)}; choose w nearer to 0 or 1"
        )


def _check_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    """Refuse the tensors of different architectures."""
    if differing := sorted(a.keys() ^ b.keys()):
        where = "first" if differing[0] in a else "second"
        raise UserError(
            f"the networks have different architectures: only the {where} has {differing[0]} (differing tensors: "
            f"{len(differing)}); merge snapshots of one network"
        )
    for name in a:
        if a[name].shape != b[name].shape or a[name].is_floating_point() != b[name].is_floating_point():
            described = " and ".join(f"{tuple(state[name].shape)} {_short(state[name])}" for state in (a, b))
            raise UserError(
                f"the networks have different architectures: {name} is {described}; merge snapshots of one network"
            )


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
