"""TODO."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ddo_plugin.base.commands import Command, flags, module_command
from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks.types import EvaluationStep

EVALUATION_SAMPLES = 50_000  # what published distances are measured on; fewer samples give larger ones


def evaluation_command(module: str, step: EvaluationStep) -> Command:
    """The command line of such a module for a step of self-play; settings are its options."""
    own = {"network": step.network, "out": step.out, "seeds": ",".join(map(str, step.seeds))}
    return module_command(module, flags({**own, **step.settings}))


def combine_seeds(found: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> dict[str, Any]:
    """What evaluations with several seeds found, by seed and together; the first metric is the score."""
    scores = [one[metrics[0]] for one in found]
    return {
        "score": statistics.fmean(scores),
        "scores": scores,
        "spread": statistics.stdev(scores) if len(scores) > 1 else None,
        "metrics": {name: statistics.fmean(one[name] for one in found) for name in metrics},
        "by_seed": found,
    }


def parse_seeds(text: str) -> list[int]:
    """Evaluation seeds, as --seeds takes them."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UserError(f"--seeds={text} is no list of numbers such as 0,1,2")
    return [int(part) for part in text.split(",")]
