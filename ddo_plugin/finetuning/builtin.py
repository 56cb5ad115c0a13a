"""The built-in plugin: objectives, reference sets as fakes, and the records of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ddo_plugin import hookimpl
from ddo_plugin.hooks.types import Fakes, ObjectiveFactory, Run

if TYPE_CHECKING:
    from torch import Tensor

    from ddo_plugin.finetuning.statistics import StatisticsLog

_logs: dict[Path, StatisticsLog] = {}


@hookimpl
def ddo_objectives() -> Mapping[str, ObjectiveFactory]:
    from ddo_plugin.objective.ddo import DDO, MLE

    return {
        "ddo": lambda options: DDO(options["ddo_alpha"], options["ddo_beta"]),
        "mle": lambda options: MLE(),
        "neon": lambda options: MLE(trains_on="fakes"),
    }


@hookimpl
def ddo_fakes(source: str | None) -> Fakes | None:
    from ddo_plugin.sampling.refsets.format import MANIFEST, RefsetFakes, open_refset

    if source is None or not (Path(source) / MANIFEST).exists():
        return None
    return RefsetFakes(open_refset(Path(source)))


@hookimpl
def ddo_statistics(run: Run, step: int, statistics: Mapping[str, Tensor]) -> None:
    _log(run).add(step, statistics)


@hookimpl
def ddo_snapshot(run: Run, path: Path, step: int) -> None:
    from ddo_plugin.snapshots import sidecar

    _log(run).flush()
    sidecar.write(run, path, step)


@hookimpl
def ddo_pause(run: Run) -> None:
    _log(run).flush()


def _log(run: Run) -> StatisticsLog:
    from ddo_plugin.finetuning.statistics import FILE_NAME, StatisticsLog

    if run.outdir not in _logs:
        _logs[run.outdir] = StatisticsLog(run.outdir / FILE_NAME, run.options.get("ddo_stop_on_collapse"))
    return _logs[run.outdir]
