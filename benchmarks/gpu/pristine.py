"""Run a script of EDM or EDM2 in a process that cannot import this package: `pristine.py SCRIPT ARGUMENTS`.

On a GPU the script runs as it is. EDM imports distutils, which Python 3.12 lacks and setuptools usually replaces; where
nothing replaces it, an empty stand-in does, and the script prints that. DDO_DEVICE=cpu moves the script to the CPU.
"""

import importlib
import importlib.util
import inspect
import os
import sys
import types

import click
import torch


def replace_distutils() -> None:
    """Let `from distutils.util import strtobool` work."""
    if importlib.util.find_spec("distutils") is None:
        print("pristine.py: distutils is missing, and a stand-in replaces it")
        package, util = types.ModuleType("distutils"), types.ModuleType("distutils.util")
        util.strtobool = lambda text: int(text.lower() in ("1", "true", "yes"))  # type: ignore[attr-defined]
        sys.modules.update({"distutils": package, "distutils.util": util})


def use_the_cpu(script: types.ModuleType) -> None:
    """Replace NCCL and the GPU by gloo and the CPU, in torch and in the defaults of the script's functions."""
    start = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda backend=None, **rest: start(backend="gloo", **rest)
    torch.cuda.set_device = lambda device: None
    commands = [value.callback for value in vars(script).values() if isinstance(value, click.Command)]
    functions = [function for _, function in inspect.getmembers(script, inspect.isfunction)]
    for function in filter(inspect.isfunction, [*commands, *functions]):
        given = function.__defaults__ or ()
        function.__defaults__ = tuple(torch.device("cpu") if isinstance(v, torch.device) else v for v in given)


if __name__ == "__main__":
    sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None  # type: ignore[assignment]
    replace_distutils()
    script = importlib.import_module(sys.argv.pop(1))
    if os.environ.get("DDO_DEVICE") == "cpu":
        use_the_cpu(script)
    (script.cmdline if hasattr(script, "cmdline") else script.main)()
