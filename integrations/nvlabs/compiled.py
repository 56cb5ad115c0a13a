"""Target and reference compiled by torch.compile (`--ddo-compile`) so that r stays exactly 0 for equal networks.

torch.compile generates different code for a forward pass with gradients and for one without, and the two round
differently. Both networks therefore run with gradients and in eval(), so that they share one compiled function.
"""

from __future__ import annotations

import functools
import sys
import weakref
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from ddo_plugin import Denoiser, UserError, upstream_device

_compiled: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def check_compiler() -> None:
    """Refuse to start where torch.compile cannot compile a function of one operation."""
    if not hasattr(torch.compiler, "substitute_in_graph"):
        raise UserError(f"--ddo-compile needs torch 2.6 or newer, not {torch.__version__}; drop --ddo-compile")
    try:
        torch.compile(lambda x: 2 * x)(torch.ones(2, device=upstream_device()))
    except Exception as error:  # which kind depends on what is missing
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--ddo-compile: torch.compile fails here: {reason}; it needs a C++ compiler on a CPU, and Triton on "
            "a GPU; install what is missing, or drop --ddo-compile"
        ) from None


def compile_alike(*networks: nn.Module | None) -> None:
    """Compile networks of one class in place, each at its first call here. Pickles and state dicts do not change."""
    for network in networks:
        if network is not None and network not in _compiled:
            torch._dynamo.config.optimize_ddp = False  # it would split the graph of the target alone
            make_traceable(sys.modules[type(network).__module__])
            network.eval().requires_grad_(True)
            network.compile(dynamic=False)
            _compiled.add(network)


def drop_graph(denoise: Denoiser) -> Denoiser:
    """Run a compiled denoiser with gradients, and drop the graph at once. Nothing ever updates the reference."""

    def denoise_without_graph(noisy: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            return denoise(noisy, sigma).detach()

    return denoise_without_graph


@functools.cache
def make_traceable(module: ModuleType) -> None:
    """Let torch.compile trace EDM2's `resample`, whose filter is a numpy array, by an equal function."""
    if hasattr(module, "resample"):
        torch.compiler.substitute_in_graph(module.resample)(resample)


def resample(x: Tensor, f: list[int] = [1, 1], mode: str = "keep") -> Tensor:  # noqa: B006  # upstream's signature
    """Halve or double the resolution with a separable filter, or keep the samples."""
    if mode == "keep":
        return x
    row = torch.cat([x.new_full((1,), tap) for tap in f])  # new_full copies nothing from the CPU
    row = row / row.sum()
    kernel = torch.outer(row, row).expand(x.shape[1], 1, -1, -1)
    convolve, gain = (conv2d, 1) if mode == "down" else (conv_transpose2d, 4)
    return convolve(x, gain * kernel, groups=x.shape[1], stride=2, padding=(len(f) - 1) // 2)
