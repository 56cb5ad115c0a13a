"""The settings of `ddo demo`, found by experiments, with their reasons (see docs/demo.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ddo_plugin.finetuning.options import COLLAPSE_BOUND
from ddo_plugin.selfplay.recipe.plan import Candidate, Costs


@dataclass(frozen=True)
class Setting:
    """How the base of one family is trained, how a round finetunes it, and how its networks are evaluated."""

    pretraining: Mapping[str, Any]
    candidate: Candidate
    rounds: int
    training: Mapping[str, Any]
    refset_count: int
    evaluation_seeds: tuple[int, ...]
    evaluation_count: int
    pretraining_cost: float  # all costs are seconds on one core, for the progress bar
    costs: Costs


@dataclass(frozen=True)
class Settings:
    """The settings of all families and of the toy."""

    families: Mapping[str, Setting]
    toy: Mapping[str, Any]


_FULL = {
    "diffusion": Setting(
        # The learning rate decays to 0, so that more maximum likelihood gains nothing.
        pretraining={"steps": 16000, "lr": 1e-3, "decay": 0.5, "ema": 100},
        candidate=Candidate("ddo", alpha=2.0, beta=0.3),
        rounds=3,
        training={"steps": 400, "lr": 1e-4, "warmup": 0.25, "ema": 50},
        refset_count=5000,
        evaluation_seeds=(101, 102, 103, 104, 105),  # different from the seeds of the reference sets
        evaluation_count=4000,
        pretraining_cost=55,
        costs=Costs(refset=5, training=6, evaluation=11),
    ),
    "tokens": Setting(
        # Dropout stands for the drop path that VAR is trained with. Finetuning uses none, as in the paper.
        pretraining={"steps": 5000, "lr": 3e-3, "decay": 1.0, "ema": 30, "dropout": 0.25},
        candidate=Candidate("ddo", alpha=0.5, beta=0.1),
        rounds=1,
        training={"steps": 600, "lr": 5e-3, "warmup": 0.1, "decay": 1.0, "ema": 20},
        refset_count=5000,
        evaluation_seeds=(101, 102, 103, 104, 105),  # different from the seeds of the reference sets
        evaluation_count=4000,
        pretraining_cost=55,
        costs=Costs(refset=3, training=12, evaluation=5),
    ),
}

# A run of under a minute: less training, and a smaller effect.
_QUICK = {
    "diffusion": replace(
        _FULL["diffusion"],
        pretraining={**_FULL["diffusion"].pretraining, "steps": 3000},
        rounds=1,
        refset_count=2000,
        evaluation_seeds=(101, 102, 103),
        evaluation_count=1000,
        pretraining_cost=15,
        costs=Costs(refset=4, training=6, evaluation=4),
    ),
    "tokens": replace(
        _FULL["tokens"],
        pretraining={**_FULL["tokens"].pretraining, "steps": 1000},
        training={**_FULL["tokens"].training, "steps": 300},
        refset_count=2000,
        evaluation_seeds=(101, 102, 103),
        evaluation_count=1000,
        pretraining_cost=15,
        costs=Costs(refset=3, training=7, evaluation=3),
    ),
}


FULL = Settings(_FULL, {})
QUICK = Settings(_QUICK, {"base-steps": 1000, "steps": 300})


def training_flags(setting: Setting) -> dict[str, Any]:
    """Return the options of a round's training."""
    return {**setting.training, "ddo-stop-on-collapse": COLLAPSE_BOUND}
