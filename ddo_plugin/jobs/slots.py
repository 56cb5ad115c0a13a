"""Slots: each gives one command a share of the machine's GPUs, or of the CPU cores this process may use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from ddo_plugin.base.environment import cores, free_ports

T = TypeVar("T")
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Slot:
    """What a command in this slot may use. An empty slot sets no limit."""

    env: Mapping[str, str] = field(default_factory=dict)
    cpus: frozenset[int] = frozenset()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep this thread, and the processes that it starts, on the slot's CPU cores during the `with` block."""
        if not self.cpus or not hasattr(os, "sched_setaffinity"):
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cpus)  # for the calling thread; its children inherit it
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def share(count: int) -> list[Slot]:
    """Divide the GPUs among this number of slots, or the CPU cores if there are no GPUs.

    If there are more slots than GPUs or cores, several slots share one.
    """
    gpus, cpus = _gpus(), cores()
    slots = []
    for number, port in enumerate(free_ports(count)):
        env = {"MASTER_PORT": str(port)}  # commands without torchrun would all use the same default port
        if gpus:
            slots.append(Slot({**env, GPUS_VARIABLE: ",".join(_part(gpus, number, count))}))
        else:
            mine = _part(cpus, number, count)
            slots.append(Slot({**env, "OMP_NUM_THREADS": str(len(mine))}, frozenset(mine)))
    return slots


def _part(all_of: Sequence[T], number: int, count: int) -> Sequence[T]:
    """Return part `number` of `count` equal parts."""
    if count >= len(all_of):
        return [all_of[number % len(all_of)]]
    return all_of[number * len(all_of) // count : (number + 1) * len(all_of) // count]


def _gpus() -> list[str]:
    """Return the names of the GPUs that CUDA_VISIBLE_DEVICES lists, or of all GPUs if it is not set."""
    if (listed := os.environ.get(GPUS_VARIABLE)) is not None:
        return [name for name in listed.split(",") if name and name != "-1"]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout.split() if answer.returncode == 0 else []
