"""Pristine EDM2 on a CPU, in a process to which our package does not exist: `pristine.py SCRIPT ARGUMENTS`."""

import importlib
import inspect
import sys

import scipy.linalg
import torch

SCRIPTS = ("generate_images", "calculate_metrics", "reconstruct_phema")


def use_the_cpu() -> None:
    start = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda backend=None, **rest: start(backend="gloo", **rest)
    torch.cuda.set_device = lambda device: None
    for module in [sys.modules[name] for name in SCRIPTS if name in sys.modules]:
        for _, function in inspect.getmembers(module, inspect.isfunction):
            given = function.__defaults__ or ()
            function.__defaults__ = tuple(torch.device("cpu") if isinstance(d, torch.device) else d for d in given)


def take_any_scipy() -> None:
    """Upstream asks for the square root as scipy gave it before 1.18."""
    root = scipy.linalg.sqrtm
    scipy.linalg.sqrtm = lambda A, disp: (root(A), None)


if __name__ == "__main__":
    sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
    script = importlib.import_module(sys.argv.pop(1))
    use_the_cpu()
    take_any_scipy()
    script.cmdline()
