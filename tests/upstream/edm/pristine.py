"""Pristine EDM's generate.py on a CPU, in a process to which our package does not exist: `pristine.py ARGUMENTS`."""

import sys

import torch


def use_the_cpu(command) -> None:
    start = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda backend, **rest: start(backend="gloo", **rest)
    torch.cuda.set_device = lambda device: None
    command.callback.__defaults__ = (torch.device("cpu"),)


if __name__ == "__main__":
    sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
    import generate

    use_the_cpu(generate.main)
    generate.main()
