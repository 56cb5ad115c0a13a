"""The score of a network from one or several evaluation seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ddo_plugin.base.commands import Command, flags, module_command
from ddo_plugin.hooks.types import EvaluationStep

EVALUATION_SAMPLES = 50_000  # published distances are measured on so many samples; fewer samples give larger distances


def evaluation_command(module: str, step: EvaluationStep) -> Command:
    """Return the command of a self-play evaluation: the module's command line, with the settings as its options."""
    own = {"network": step.network, "out": step.out, "seeds": ",".join(map(str, step.seeds))}
    return module_command(module, flags({**own, **step.settings}))


def combine_seeds(by_seed: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of several evaluation seeds, one by one and averaged. The first metric is the score."""
    scores = [result[metrics[0]] for result in by_seed]
    return {
        "score": statistics.fmean(scores),
        "scores": scores,
        "spread": statistics.stdev(scores) if len(scores) > 1 else None,
        "metrics": {name: statistics.fmean(result[name] for result in by_seed) for name in metrics},
        "by_seed": by_seed,
    }
