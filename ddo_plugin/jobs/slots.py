"""Slots of the local pool: a share of the machine's GPUs, or of the CPUs this process may use."""

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
    """What a command that runs in this slot may use. The empty one: whatever there is."""

    env: Mapping[str, str] = field(default_factory=dict)
    cpus: frozenset[int] = frozenset()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep this thread, and what it starts meanwhile, on the slot's CPUs."""
        if not self.cpus or not hasattr(os, "sched_setaffinity"):
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cpus)  # of the calling thread; a child inherits it
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def share(count: int) -> list[Slot]:
    """`count` slots. With GPUs, each gets its share of them; without, its share of the CPUs.

    Where there are more slots than GPUs or CPUs, several slots share one.
    """
    gpus, cpus = _gpus(), cores()
    slots = []
    for number, port in enumerate(free_ports(count)):
        env = {"MASTER_PORT": str(port)}  # for commands that run without torchrun, which would all take the same
        if gpus:
            slots.append(Slot({**env, GPUS_VARIABLE: ",".join(_part(gpus, number, count))}))
        else:
            mine = _part(cpus, number, count)
            slots.append(Slot({**env, "OMP_NUM_THREADS": str(len(mine))}, frozenset(mine)))
    return slots


def _part(all_of: Sequence[T], number: int, count: int) -> Sequence[T]:
    if count >= len(all_of):
        return [all_of[number % len(all_of)]]
    return all_of[number * len(all_of) // count : (number + 1) * len(all_of) // count]


def _gpus() -> list[str]:
    """As the variable names them: those it lists, or all that NVIDIA's driver knows."""
    if (listed := os.environ.get(GPUS_VARIABLE)) is not None:
        return [name for name in listed.split(",") if name and name != "-1"]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = [program, "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    return answer.stdout.split() if answer.returncode == 0 else []
