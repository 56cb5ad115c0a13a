"""The integration of the demo's training script: the shortest worked example of one."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddo_integrations.demo.names import FEATURES, UPSTREAM
from ddo_plugin import (
    Command,
    EvaluationStep,
    FeatureExtractor,
    Generator,
    Reference,
    RefsetStep,
    RoundStep,
    Upstream,
    finetuning_options,
    flags,
    hookimpl,
    module_command,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ddo_integrations.demo.families import Family
    from ddo_plugin import Finetuning


@hookimpl
def ddo_upstreams() -> Sequence[Upstream]:
    return [
        Upstream(
            name=UPSTREAM,
            title="the demo (scikit-learn's digits)",
            script=str(Path(__file__).with_name("train.py")),
            paths=("data",),
            reserved={"outdir": "self-play sets it"},
        )
    ]


@hookimpl
def ddo_options(upstream: str) -> Sequence[click.Option]:
    return finetuning_options(alpha=1.0, beta=0.3) if upstream == UPSTREAM else []


@hookimpl
def ddo_configure(upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> bool | None:
    """Start from the reference, without dropout, and let the objective judge every batch."""
    if upstream != UPSTREAM:
        return None
    import torch

    from ddo_integrations.demo.train import CHECKPOINT
    from ddo_plugin.finetuning import session as finetuning

    run = finetuning.prepare(UPSTREAM, options["outdir"], options)
    state = options["outdir"] / CHECKPOINT
    if state.exists():
        run.leave_if_paused(torch.load(str(state), weights_only=True, mmap=True)["step"])
    network = config["family"].network()
    network.load_state_dict(run.reference.network.state_dict())
    config.update(network=network, loss=FinetuningLoss(run, config["family"]))
    config.update(on_snapshot=run.snapshot_written, on_checkpoint=run.paused)
    if options["ddo_pause_after"]:
        config.update(dump=options["snap"] or options["dump"])  # it goes on from any snapshot
    return True


class FinetuningLoss:
    """Replaces the native loss: both likelihoods of a batch, and the objective's verdict on them."""

    def __init__(self, run: Finetuning, family: Family):
        self.run, self.family = run, family
        self.reference = run.reference.network if run.objective.needs_fakes else None

    def __call__(self, network: nn.Module, real: Tensor, labels: Tensor, step: int) -> Tensor:
        terms = self.family.terms(network, self.reference, real, labels, self.run.fakes)
        return self.run.judge(terms, step).mean()


@hookimpl
def ddo_reference(upstream: str, source: str, options: Mapping[str, Any]) -> Reference | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.demo.families import build, load_snapshot
    from ddo_plugin import freeze

    path = Path(source)
    return freeze(load_snapshot(path, options["family"], build(options["family"], options["data"])), source, path)


@hookimpl
def ddo_generator_options(upstream: str) -> Sequence[click.Option]:
    if upstream != UPSTREAM:
        return []
    from ddo_integrations.demo.settings import FULL

    return [
        click.Option(["--family"], type=click.Choice(list(FULL.families)), required=True),
        click.Option(["--data"], type=click.Path(exists=True, path_type=Path), required=True),
    ]


@hookimpl
def ddo_generator(upstream: str, source: str, options: Mapping[str, Any]) -> Generator | None:
    if upstream != UPSTREAM:
        return None
    from ddo_integrations.demo.generator import generator

    return generator(source, options)


@hookimpl
def ddo_features(name: str) -> FeatureExtractor | None:
    if not name.startswith(FEATURES):
        return None
    from ddo_integrations.demo.data import Digits

    return Digits(Path(name.removeprefix(FEATURES))).features


@hookimpl
def ddo_refset_command(step: RefsetStep) -> Command | None:
    if step.upstream != UPSTREAM:
        return None
    from ddo_plugin import refset_command

    return refset_command(step)


@hookimpl
def ddo_round_command(step: RoundStep) -> Command | None:
    if step.upstream != UPSTREAM:
        return None
    ddo = {"ddo": step.reference, "ddo-objective": step.objective, "ddo-alpha": step.alpha, "ddo-beta": step.beta}
    if step.fakes is not None:
        ddo["ddo-fakes"] = step.fakes
    return command("train", {"outdir": step.out, "seed": step.seed, **step.settings, **ddo})


@hookimpl
def ddo_evaluation_command(step: EvaluationStep) -> Command | None:
    if step.upstream != UPSTREAM:
        return None
    seeds = ",".join(map(str, step.seeds))
    return command("evaluate", {"network": step.network, "out": step.out, "seeds": seeds, **step.settings})


@hookimpl
def ddo_evaluation_options(upstream: str) -> Sequence[click.Parameter]:
    if upstream != UPSTREAM:
        return []
    from ddo_integrations.demo.evaluate import main

    return main.params


def command(module: str, settings: Mapping[str, Any]) -> Command:
    """The command that runs one of the demo's scripts."""
    return module_command(f"ddo_integrations.demo.{module}", flags(settings))
