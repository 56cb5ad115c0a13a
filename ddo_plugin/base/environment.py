"""Facts about this machine and the installed packages, and what a process may use of them."""

from __future__ import annotations

import os
import platform
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def describe() -> dict[str, str]:
    """Return the machine and the packages that upstreams depend on, as text for people. Imports torch."""
    return {
        **package_versions(),
        "python": f"{platform.python_version()}, {sys.executable}",
        "GPU": _gpu(),
        "processor": f"{core_count()} cores, {_memory()} of memory",
    }


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on. Imports none of them."""
    packages = ("ddo-plugin", "torch", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def device_name(device: torch.device) -> str:
    """Return the model of a GPU, or "cpu"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def torch_error() -> str:
    """Return why torch cannot be imported, or an empty string if it can."""
    try:
        import torch  # noqa: F401
    except Exception as error:  # a broken installation raises OSError, ImportError and others
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


def cores() -> list[int]:
    """Return the numbers of the CPU cores that this process may use; in a container these may be few of many."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_count() -> int:
    """Return how many CPU cores this process may use."""
    return len(cores())


def free_port() -> int:
    """Return a port that no process on this machine listens at now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that no process on this machine listens at now."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def cache_folder() -> Path:
    """Return the cache folder of this package. Everything in it can be made again."""
    if folder := os.environ.get("DDO_CACHE"):
        return Path(folder).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "ddo-plugin"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _gpu() -> str:
    if torch_error():
        return "unknown without torch"
    import torch

    if not torch.cuda.is_available():
        return "none found" + (
            "" if torch.version.cuda or torch.version.hip else " (this torch is built without GPU support)"
        )
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return ", ".join(f"{device.name} ({_gibibytes(device.total_memory)})" for device in devices)


def _memory() -> str:
    try:
        return _gibibytes(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # not on Windows
        return "an unknown amount"


def _gibibytes(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB"
