"""A round in VAR's native loop: how long it is, where it stands, and what makes a resumed one the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dist
import numpy as np
import torch
from torch import Tensor

from ddo_plugin import Finetuning, UserError


@dataclass
class Round:
    """Counted in batches, as the loop does; an optimizer step takes `accumulation` of them."""

    run: Finetuning
    steps: int
    accumulation: int
    snapshot_steps: int
    state_steps: int | None
    seed: int
    settings: Mapping[str, Any]  # what a run that goes on must have in common with the one before
    done: int = 0  # batches before this process started
    random: Tensor | None = None  # this rank's random state before the first batch of all; None: it is this process's

    @property
    def batches(self) -> int:
        return self.steps * self.accumulation

    @property
    def outdir(self) -> Path:
        return self.run.run.outdir

    def generator(self, batch: int, rank: int, device: torch.device) -> torch.Generator:
        """Randomness of one batch on one rank. A fresh generator has a fixed seed: every rank would draw the same."""
        sequence = np.random.SeedSequence([self.seed, self.run.run.options["ddo_round"] or 0, rank, batch])
        return torch.Generator(device).manual_seed(int(sequence.generate_state(1)[0]))

    def snapshot_is_due(self, step: int) -> bool:
        """After so many optimizer steps; the round's end has one, whatever the interval."""
        return step % self.snapshot_steps == 0 or step == self.steps

    def state_is_due(self, step: int) -> bool:
        """At the end upstream writes one itself."""
        return self.state_steps is not None and step % self.state_steps == 0 and step < self.steps

    def ahead(self, batches: Any) -> Iterable[Any]:
        """The loader from the batch on at which the round stands.

        Upstream's sampler is told its place but starts over. So the batches before are read again: workers draw again
        the random numbers that augmented them.
        """
        _check_same_place(self.done)
        if self.random is None:
            self.random = torch.get_rng_state()
        torch.set_rng_state(self.random)
        batches.batch_sampler.start_it = 0
        return _Ahead(batches, self.done)


def _check_same_place(done: int) -> None:
    """Every node reads the output folder for itself."""
    places = dist.allgather(torch.tensor([done])).tolist()
    if len(set(places)) > 1:
        raise UserError(f"the ranks would go on from batches {places}; give all nodes the same --local_out_dir_path")


@dataclass
class _Ahead:
    batches: Iterable[Any]
    skipped: int

    def __iter__(self) -> Iterator[Any]:
        rest = iter(self.batches)
        for _ in range(self.skipped):
            next(rest)
        return rest


_round: Round | None = None


def start(made: Round) -> None:
    """Make this the round of the process."""
    global _round
    _round = made


def active() -> Round:
    """The round of this process."""
    assert _round is not None, "configure comes first"
    return _round
