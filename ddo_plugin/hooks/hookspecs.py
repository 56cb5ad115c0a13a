"""The one contract between this package, its integrations and a stranger's plugin.

A plugin is a module (or object) named by an entry point of the group "ddo_plugin", with functions decorated by
`ddo_plugin.hookimpl`. It implements the hooks it cares about and declares only the arguments it uses.
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
        EvaluationStep,
        Fakes,
        FeatureExtractor,
        Generator,
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
    """The upstreams that this plugin integrates."""


@hookspec
def ddo_options(upstream: str) -> Sequence[click.Option]:  # type: ignore[empty-body]
    """Options that the training script of `upstream` gains; names start with `--ddo`."""


@hookspec
def ddo_configure(upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> bool | None:
    """Change upstream's own configuration for a DDO run, after upstream built it; True if this plugin did.

    Called only if --ddo was given. If nobody answers True, the run is refused.
    """


@hookspec(firstresult=True)
def ddo_loader(upstream: str, batches: Iterable[Any], steps: int) -> tuple[Iterable[Any], int] | None:
    """The batches of real data that a DDO run takes from upstream's, and how many; where its loop counts them so."""


# -- the pieces of a run ------------------------------------------------------------------------------------------


@hookspec
def ddo_objectives() -> Mapping[str, ObjectiveFactory]:  # type: ignore[empty-body]
    """Objectives by name, as `--ddo-objective` takes them. A factory gets the run's options."""


@hookspec(firstresult=True)
def ddo_reference(upstream: str, source: str, options: Mapping[str, Any]) -> Reference | None:
    """Load and freeze the reference network from `source`, a path or URL."""


@hookspec(firstresult=True)
def ddo_fakes(
    upstream: str, source: str | None, reference: Reference, options: Mapping[str, Any]
) -> Fakes | OnlineFakes | None:
    """Open what `--ddo-fakes` names as a source of samples of `reference`; None: it was not given."""


@hookspec(firstresult=True)
def ddo_features(name: str) -> FeatureExtractor | None:
    """The feature extractor that Fréchet distances and their like are measured in."""


# -- samples of a network -------------------------------------------------------------------------------------------


@hookspec
def ddo_generator_options(upstream: str) -> Sequence[click.Option]:  # type: ignore[empty-body]
    """Options of `ddo refset make` and `ddo sample` for networks of `upstream`: of its sampler, its guidance."""


@hookspec(firstresult=True)
def ddo_generator(upstream: str, source: str, options: Mapping[str, Any]) -> Generator | None:
    """The network at `source`, a path or URL, ready to be sampled as `options` say."""


# -- events of a run ----------------------------------------------------------------------------------------------


@hookspec
def ddo_statistics(run: Run, step: int, statistics: Mapping[str, Tensor]) -> None:
    """The objective was evaluated. Tensors are detached and stay on their device: reading one waits for it."""


@hookspec
def ddo_snapshot(run: Run, path: Path, step: int) -> None:
    """A snapshot of the target network was written to `path`."""


@hookspec
def ddo_pause(run: Run, step: int) -> None:
    """The run can be interrupted here and go on: a training state is about to be written, or the run is over."""


# -- files ----------------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def ddo_convert(source: Path, out: Path, like: Path | None) -> str | None:
    """Write the network in `source` to `out` in upstream's other format: a line on what was written, or None.

    `like` is a file whose remainder a training state is to take over.
    """


# -- recipes ---------------------------------------------------------------------------------------------------------


@hookspec
def ddo_evaluation_options(upstream: str) -> Sequence[click.Parameter]:  # type: ignore[empty-body]
    """Options of the command that judges networks of `upstream`: what a recipe may set under [evaluation]."""


# -- self-play: the steps of a round as ordinary commands -----------------------------------------------------------


@hookspec(firstresult=True)
def ddo_refset_command(step: RefsetStep) -> Command | None:
    """The command that makes this reference set, or None if `step.upstream` is somebody else's."""


@hookspec(firstresult=True)
def ddo_round_command(step: RoundStep) -> Command | None:
    """The command that runs this round of finetuning, or None."""


@hookspec(firstresult=True)
def ddo_evaluation_command(step: EvaluationStep) -> Command | None:
    """The command that judges this network, or None."""
