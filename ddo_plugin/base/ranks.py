"""The processes of one command under torchrun, and what they have to agree on."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from ddo_plugin.base.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # a rank may wait long for a slower one


@dataclass(frozen=True)
class Ranks:
    """This process among its fellows."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def agree(self, function: Callable[[], T]) -> T:
        """What the first rank's call returns, on every rank. Its error ends them all; the first alone says it."""
        if self.world == 1:
            return function()
        import torch.distributed as dist

        told: list[Any] = [None, None]
        failure: BaseException | None = None
        if self.first:
            try:
                told[0] = function()
            except Exception as error:
                failure, told[1] = error, getattr(error, "exit_code", 1)
        dist.broadcast_object_list(told, src=0)
        if failure is not None:
            raise failure
        if told[1] is not None:
            sys.exit(told[1])
        return told[0]

    def together(self, function: Callable[[], T]) -> T:
        """What each rank's own call returns. If some fail, all end, and one says why."""
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
        """Every rank's value, on the first rank."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.world if self.first else None
        dist.gather_object(value, values)
        return values

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier()


@contextlib.contextmanager
def ranks(cuda: bool) -> Iterator[Ranks]:
    """Yield the ranks that torchrun started, each with a GPU of its own if `cuda`; one rank without torchrun."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not 0 <= rank < world:
        raise UserError(f"RANK={rank} and WORLD_SIZE={world} do not go together; start several processes by torchrun")
    if world == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    if cuda:
        import torch

        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(rank, world)
    finally:
        # Before pytorch#154976 the end of the group holds the GIL and waits for threads that may want it (torch 2.1).
        time.sleep(0.1)
        dist.destroy_process_group()
