"""How a network of EDM or EDM2 computes while it is sampled: its precision, and whether it is compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from ddo_plugin import UserError

if TYPE_CHECKING:
    import torch

Forward = Callable[..., Any]


def execution_options() -> list[click.Option]:
    """Return the options that make sampling faster or more exact, but that upstream's scripts do not have."""
    return [
        click.Option(
            ["--precision"],
            type=click.Choice(["fp32", "fp16"]),
            help="Floating-point format in which the network computes; fp16 needs a GPU. The state of the solver stays "
            "in fp32 or fp64.  [default: the format that the network's file names]",
        ),
        click.Option(
            ["--compile"],
            is_flag=True,
            help="Compile the network with torch.compile. The start takes minutes, then sampling is faster. The last "
            "bits of samples change.",
        ),
    ]


def prepare(network: Any, options: Mapping[str, Any], device: torch.device) -> Forward:
    """Return the forward of a network, which is moved to the device and computes as the options ask."""
    set_precision(network, options["precision"], device)
    network.to(device)
    return compiled(network) if options["compile"] else network


def set_precision(network: Any, precision: str | None, device: torch.device) -> None:
    """Choose the precision of a network; None keeps that of its file."""
    if precision == "fp16" and device.type != "cuda":
        raise UserError("--precision=fp16 needs a GPU: on a CPU, upstream's networks compute in fp32; drop --precision")
    if precision is not None:
        network.use_fp16 = precision == "fp16"


def compiled(network: Any) -> Forward:
    """Return the forward, compiled for each size of a batch. A run has at most two sizes."""
    import torch
    from torch._dynamo.exc import TorchDynamoException

    from ddo_integrations.nvlabs.compiled import make_traceable

    make_traceable(sys.modules[type(network).__module__])
    forward = torch.compile(network, dynamic=False, fullgraph=True)

    def call(*inputs: Any) -> Any:
        try:
            return forward(*inputs)
        except TorchDynamoException as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"--compile: torch cannot compile the network ({reason}); drop --compile") from error

    return call


def settings(network: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for a manifest. Earlier versions had no --compile, so only True is named."""
    return {"fp16": bool(getattr(network, "use_fp16", False)), **({"compiled": True} if options["compile"] else {})}
