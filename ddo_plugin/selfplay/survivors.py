"""Which candidates of a round go on after a rung: Optuna's percentile pruner decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ddo_plugin.base.errors import UserError


def survivors(scores: Sequence[float], keep: float) -> list[int]:
    """The places of those whose score, lower is better, is within the best share `keep` of all, rounded up.

    All of a round's candidates are compared at once. A pruner that meets them one by one, as successive halving in
    Optuna does, lets go on who merely came first, and forgets who came late.
    """
    optuna = import_engine()
    study = optuna.create_study(pruner=optuna.pruners.PercentilePruner(100 * keep, n_startup_trials=0))
    sound = {place: score for place, score in enumerate(scores) if math.isfinite(score)}
    for score in sound.values():
        study.add_trial(optuna.trial.create_trial(value=score, intermediate_values={RUNG: score}))
    kept = sorted((place for place, score in sound.items() if not _is_pruned(study, score)), key=sound.__getitem__)
    return sorted(kept[: math.ceil(keep * len(scores))])  # of those that tie, no more


RUNG = 1  # the step at which all have reported; each rung has a study of its own


def _is_pruned(study: Any, score: float) -> bool:
    trial = study.ask()
    trial.report(score, RUNG)
    return bool(trial.should_prune())


def import_engine() -> Any:
    """Optuna, or a line on how to get it."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "search.kind = 'adaptive' needs optuna: pip install 'ddo-plugin[search]', or set it to 'grid'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
