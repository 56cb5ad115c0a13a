"""A round in VAR's native loop: its length, its position, and what makes a resumed round repeat the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import dist
import numpy as np
import torch
from torch import Tensor

from ddo_plugin import Session, UserError


@dataclass
class Round:
    """Counts in batches, as the loop does; an optimizer step takes `accumulation` batches."""

    session: Session
    steps: int
    accumulation: int
    snapshot_steps: int
    state_steps: int | None
    seed: int
    done: int = 0  # batches before this process started
    random: Tensor | None = None  # this rank's state before the round's first batch; None: that of the process

    @property
    def batches(self) -> int:
        """The number of batches in the round."""
        return self.steps * self.accumulation

    def generator(self, batch: int, rank: int, device: torch.device) -> torch.Generator:
        """Return a generator for one batch on one rank; with the same seed, every rank would draw the same numbers."""
        sequence = np.random.SeedSequence([self.seed, self.session.options["ddo_round"] or 0, rank, batch])
        return torch.Generator(device).manual_seed(int(sequence.generate_state(1)[0]))

    def snapshot_is_due(self, step: int) -> bool:
        """Return whether a snapshot follows this optimizer step; the last step always has one."""
        return step % self.snapshot_steps == 0 or step == self.steps

    def state_is_due(self, step: int) -> bool:
        """Return whether a training state follows this step; after the last step upstream writes one itself."""
        return self.state_steps is not None and step % self.state_steps == 0 and step < self.steps

    def is_resumable_after(self, step: int) -> bool:
        """Return whether a later run can resume after this step, counted from 0, or the round ends with it."""
        return self.state_is_due(step + 1) or step + 1 == self.steps

    def ahead(self, batches: Any) -> Iterable[Any]:
        """Return the loader's batches from the round's position on.

        The batches before are read again and dropped, so that workers draw the same random numbers for augmentation.
        Upstream's sampler alone would start over with other random numbers.
        """
        _check_same_place(self.done)
        if self.random is None:
            self.random = torch.get_rng_state()
        torch.set_rng_state(self.random)
        batches.batch_sampler.start_it = 0
        return _Ahead(batches, self.done)


def _check_same_place(done: int) -> None:
    """Refuse ranks that resume from different batches, because each node reads the output folder for itself."""
    places = dist.allgather(torch.tensor([done])).tolist()
    if len(set(places)) > 1:
        raise UserError(
            f"the ranks would resume from different batches {places}; pass the same --local_out_dir_path on all nodes"
        )


@dataclass
class _Ahead:
    batches: Iterable[Any]
    skipped: int

    def __iter__(self) -> Iterator[Any]:
        rest = iter(self.batches)
        for _ in range(self.skipped):
            next(rest)
        return rest
