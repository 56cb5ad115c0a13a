"""The hooks: the contract between this package, its integrations and other people's plugins.

A plugin is a module or an object that an entry point of the group "ddo_plugin" names. Its functions or methods are
decorated with `ddo_plugin.hookimpl`. It implements the hooks it needs and declares only the arguments it uses. An
integration of an upstream derives from `ddo_plugin.Integration` instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click
    from torch import Tensor

    from ddo_plugin.base.commands import Command
    from ddo_plugin.hooks.types import (
        Effort,
        EvaluationStep,
        Fakes,
        FeatureExtractor,
        Generator,
        NetworkCount,
        ObjectiveFactory,
        OnlineFakes,
        Reference,
        RefsetStep,
        RoundStep,
        Run,
        Upstream,
    )

PROJECT = "ddo_plugin"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# -- an upstream's training script --------------------------------------------------------------------------------


@hookspec
def ddo_upstreams() -> Sequence[Upstream]:  # type: ignore[empty-body]  # a spec has no body
    """Return the upstreams that this plugin integrates."""


@hookspec
def ddo_options(upstream: str) -> Sequence[click.Option]:  # type: ignore[empty-body]
    """Return the options that the training script of `upstream` gains; their names start with `--ddo`."""


@hookspec
def ddo_configure(upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> bool | None:
    """Change the configuration that upstream built into that of a DDO run, and return True.

    Called only if --ddo was given. If no plugin returns True, the run is refused.
    """


@hookspec(firstresult=True)
def ddo_loader(upstream: str, batches: Iterable[Any], steps: int) -> tuple[Iterable[Any], int] | None:
    """Return the batches that a DDO run trains on, and their number, for loops that count their duration in batches."""


# -- the pieces of a run ------------------------------------------------------------------------------------------


@hookspec
def ddo_objectives() -> Mapping[str, ObjectiveFactory]:  # type: ignore[empty-body]
    """Return objectives by their names in `--ddo-objective`. A factory takes the run's options."""


@hookspec(firstresult=True)
def ddo_reference(upstream: str, source: str, options: Mapping[str, Any]) -> Reference | None:
    """Load and freeze the reference network from `source`, a path or URL."""


@hookspec(firstresult=True)
def ddo_fakes(
    upstream: str, source: str | None, reference: Reference, options: Mapping[str, Any]
) -> Fakes | OnlineFakes | None:
    """Open `source`, the value of `--ddo-fakes` (None if it was not given), as a source of samples of `reference`."""


@hookspec(firstresult=True)
def ddo_features(name: str) -> FeatureExtractor | None:
    """Return the feature extractor of this name, in which metrics such as the Fréchet distance are measured."""


# -- samples of a network -------------------------------------------------------------------------------------------


@hookspec
def ddo_generator_options(upstream: str) -> Sequence[click.Option]:  # type: ignore[empty-body]
    """Return the options of `ddo sample` and `ddo refset make` that choose how networks of `upstream` are sampled."""


@hookspec(firstresult=True)
def ddo_generator(upstream: str, source: str, options: Mapping[str, Any]) -> Generator | None:
    """Load the network at `source`, a path or URL, to be sampled with these options."""


# -- events of a run ----------------------------------------------------------------------------------------------


@hookspec
def ddo_statistics(run: Run, step: int, statistics: Mapping[str, Tensor]) -> None:
    """React to the statistics of a step. Tensors are detached and on their device; reading one waits for it."""


@hookspec
def ddo_snapshot(run: Run, path: Path, step: int) -> None:
    """React to a snapshot of the target network, written to `path`."""


@hookspec
def ddo_pause(run: Run, step: int) -> None:
    """React to a point where the run can be interrupted: a training state is about to be written, or the run ends."""


# -- files ----------------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def ddo_convert(source: Path, out: Path, like: Path | None) -> str | None:
    """Write the network in `source` to `out` in upstream's other format, and return a line that says so.

    `like` is a training checkpoint from which everything except the network is taken.
    """


@hookspec(firstresult=True)
def ddo_merge(upstream: str, a: Path, b: Path, outs: Mapping[Path, float], options: Mapping[str, Any]) -> str | None:
    """Merge two networks, θ = θ_a + w·(θ_b − θ_a), into the files `outs`, each with its w.

    Return a line that describes the network.
    """


# -- recipes ---------------------------------------------------------------------------------------------------------


@hookspec
def ddo_evaluation_options(upstream: str) -> Sequence[click.Parameter]:  # type: ignore[empty-body]
    """Return the options of the command that evaluates networks of `upstream`, which recipes set in [evaluation]."""


# -- self-play: the steps of a round as ordinary commands -----------------------------------------------------------


@hookspec(firstresult=True)
def ddo_refset_command(step: RefsetStep) -> Command | None:
    """Return the command that makes this reference set, or None if `step.upstream` is not this plugin's."""


@hookspec(firstresult=True)
def ddo_round_command(step: RoundStep) -> Command | None:
    """Return the command that runs this round of finetuning, or None."""


@hookspec(firstresult=True)
def ddo_evaluation_command(step: EvaluationStep) -> Command | None:
    """Return the command that evaluates this network, or None."""


# -- the costs of a recipe -------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def ddo_count(upstream: str, network: Path) -> NetworkCount | None:
    """Count the operations and the memory of a network. Its upstream's checkout can be imported."""


@hookspec(firstresult=True)
def ddo_effort(step: RefsetStep | RoundStep | EvaluationStep, network: NetworkCount, gpus: int) -> Effort | None:
    """Return what this step costs with such a network on this number of GPUs, for `ddo plan`."""
