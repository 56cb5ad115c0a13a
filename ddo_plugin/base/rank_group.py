"""The processes of one command under torchrun: start them, let them agree, collect what they have."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.ranks import local_rank, rank, world_size

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # a rank may wait long for a slower one


@dataclass(frozen=True)
class Ranks:
    """This process (`rank`) among the `world` processes of the command."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Return whether this is the rank that writes files and prints for all."""
        return self.rank == 0

    def agree(self, function: Callable[[], T]) -> T:
        """Call `function` on the first rank and return its value on every rank.

        If it fails, all ranks end and only the first one reports the error.
        """
        if self.world == 1:
            return function()
        import torch.distributed as dist

        answer: list[Any] = [None, None]  # the value, and the exit status of a failure
        failure: BaseException | None = None
        if self.first:
            try:
                answer[0] = function()
            except Exception as error:
                failure, answer[1] = error, getattr(error, "exit_code", 1)
        dist.broadcast_object_list(answer, src=0)
        if failure is not None:
            raise failure
        if answer[1] is not None:
            sys.exit(answer[1])
        return answer[0]

    def together(self, function: Callable[[], T]) -> T:
        """Call `function` on every rank and return the rank's own value. If any fails, all end and one reports it."""
        if self.world == 1:
            return function()
        import torch.distributed as dist

        failure: Exception | None = None
        try:
            value = function()
        except Exception as error:
            failure = error
        statuses: list[Any] = [None] * self.world
        dist.all_gather_object(statuses, failure and getattr(failure, "exit_code", 1))
        failed = [rank for rank, status in enumerate(statuses) if status is not None]
        if not failed:
            return value
        if failure is not None and self.rank == failed[0]:
            raise failure
        sys.exit(statuses[failed[0]])

    def gather(self, value: T) -> list[T] | None:
        """Return the values of all ranks on the first rank, None on the others."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.world if self.first else None
        dist.gather_object(value, values)
        return values

    def wait(self) -> None:
        """Wait until all ranks have come to this call."""
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier()


@contextlib.contextmanager
def ranks(cuda: bool) -> Iterator[Ranks]:
    """Start the process group and yield its ranks, each with its own GPU if `cuda`; one rank without torchrun."""
    number, world = rank(), world_size()
    if not 0 <= number < world:
        raise UserError(f"RANK={number} does not fit WORLD_SIZE={world}; start several processes by torchrun")
    if world == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    if cuda:
        import torch

        torch.cuda.set_device(local_rank())
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(number, world)
    finally:
        # Before pytorch#154976, destroying the group holds the GIL while it waits for threads that may need it.
        time.sleep(0.1)
        dist.destroy_process_group()
