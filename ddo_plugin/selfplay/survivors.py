"""The choice of the candidates that continue after a rung, by Optuna's percentile pruner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ddo_plugin.base.errors import UserError


def survivors(scores: Sequence[float], keep: float) -> list[int]:
    """Return the indices of the best scores: the share `keep` of all, rounded up. Lower scores are better.

    All candidates of a round are compared at once. A pruner that sees them one after the other, such as successive
    halving in Optuna, favours early reporters over late ones.
    """
    optuna = import_engine()
    study = optuna.create_study(pruner=optuna.pruners.PercentilePruner(100 * keep, n_startup_trials=0))
    sound = {place: score for place, score in enumerate(scores) if math.isfinite(score)}
    for score in sound.values():
        study.add_trial(optuna.trial.create_trial(value=score, intermediate_values={RUNG: score}))
    kept = sorted((place for place, score in sound.items() if not _is_pruned(study, score)), key=sound.__getitem__)
    return sorted(kept[: math.ceil(keep * len(scores))])  # candidates with equal scores do not raise the number


RUNG = 1  # the step at which all candidates report; each rung has its own study


def _is_pruned(study: Any, score: float) -> bool:
    trial = study.ask()
    trial.report(score, RUNG)
    return bool(trial.should_prune())


def import_engine() -> Any:
    """Return the module optuna, or say how to install it."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "search.kind = 'adaptive' needs optuna: pip install 'ddo-plugin[search]', or set search.kind to 'grid'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
