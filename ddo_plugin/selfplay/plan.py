"""What a self-play run is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """One setting of the objective that a round tries."""

    objective: str
    alpha: float
    beta: float
    needs_fakes: bool = True

    def __str__(self) -> str:
        return f"{self.objective} α={self.alpha:g} β={self.beta:g}"


@dataclass(frozen=True)
class Costs:
    """How long the steps of a round take, relative to one another."""

    refset: float = 1.0
    training: float = 1.0
    evaluation: float = 1.0


@dataclass(frozen=True)
class Policy:
    """What to do about steps that fail, and about old snapshots."""

    retries: int = 0
    allow_failures: bool = False  # a round goes on without the candidates whose steps fail
    keep: int | None = None  # evaluated snapshots of a round that stay on disk, the best first; None: all


@dataclass(frozen=True)
class Plan:
    """A self-play run: what to start from, how many rounds, and the settings of each step."""

    name: str
    upstream: str
    base: Path
    rounds: int
    candidates: tuple[Candidate, ...]
    seed: int
    refset_count: int
    evaluation_seeds: tuple[int, ...]
    refset: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    costs: Costs = Costs()
    changes: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # training settings from a round on
    base_sha256: str | None = None

    def training_in(self, number: int) -> dict[str, Any]:
        """The training settings of a round: later changes win."""
        settings = dict(self.training)
        for first in sorted(self.changes):
            if number >= first:
                settings.update(self.changes[first])
        return settings
