"""The integration of the demo's training script: the shortest worked example of an integration."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddo_integrations.demo.names import FAMILIES, FEATURES, UPSTREAM
from ddo_plugin import (
    Command,
    EvaluationStep,
    FeatureExtractor,
    Generator,
    Integration,
    Place,
    Reference,
    RefsetStep,
    RoundStep,
    Upstream,
    finetuning_options,
    flags,
    hookimpl,
    module_command,
    noise_option,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ddo_integrations.demo.families import Family
    from ddo_plugin import Session


class DigitsIntegration(Integration):
    """Finetunes, samples and evaluates the demo's models of scikit-learn's digits."""

    upstream = Upstream(
        name=UPSTREAM,
        title="the demo (scikit-learn's digits)",
        script=str(Path(__file__).with_name("train.py")),
        paths=("data",),
        reserved={"outdir": "self-play sets it"},
        states=("training-state.pt",),
    )

    def options(self) -> Sequence[click.Option]:
        return [*finetuning_options(alpha=1.0, beta=0.3), noise_option()]

    def configure(self, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
        """Start from the reference, without dropout, and train with the objective."""
        import torch

        from ddo_integrations.demo.train import CHECKPOINT
        from ddo_plugin import prepare_session

        session = prepare_session(self.upstream.name, options["outdir"], options)
        state = options["outdir"] / CHECKPOINT
        if state.exists():
            session.stop_if_paused(torch.load(str(state), weights_only=True, mmap=True)["step"])
        network = config["family"].network()
        network.load_state_dict(session.reference.network.state_dict())
        config.update(network=network, loss=FinetuningLoss(session, config["family"]))
        config.update(on_snapshot=session.report_snapshot, on_checkpoint=session.report_pause)
        if options["ddo_pause_after"]:
            config.update(dump=options["snap"] or options["dump"])  # a paused run resumes from any snapshot

    def reference(self, source: str, options: Mapping[str, Any]) -> Reference:
        from ddo_integrations.demo.families import build, load_snapshot
        from ddo_plugin import freeze_reference, local_file

        path = local_file(source)
        return freeze_reference(
            load_snapshot(path, options["family"], build(options["family"], options["data"])), source, path
        )

    def generator_options(self) -> Sequence[click.Option]:
        return [
            click.Option(["--family"], type=click.Choice(FAMILIES), required=True, help="Model family of the network."),
            click.Option(
                ["--data"],
                type=Place(exists=True, file_okay=False),
                required=True,
                help="Folder of prepared digits.",
            ),
        ]

    def generator(self, source: str, options: Mapping[str, Any]) -> Generator:
        from ddo_integrations.demo.generator import generator

        return generator(source, options)

    def merge(self, a: Path, b: Path, outs: Mapping[Path, float], options: Mapping[str, Any]) -> str:
        from ddo_integrations.demo.families import merge

        return merge(a, b, outs)

    def evaluation_options(self) -> Sequence[click.Parameter]:
        from ddo_integrations.demo.evaluate import main

        return main.params

    def refset_command(self, step: RefsetStep) -> Command:
        from ddo_plugin import refset_command

        return refset_command(step)

    def round_command(self, step: RoundStep) -> Command:
        ddo = {"ddo": step.reference, "ddo-objective": step.objective, "ddo-alpha": step.alpha, "ddo-beta": step.beta}
        if step.fakes is not None:
            ddo["ddo-fakes"] = step.fakes
        return command("train", {"outdir": step.out, "seed": step.seed, **step.settings, **ddo})

    def evaluation_command(self, step: EvaluationStep) -> Command:
        seeds = ",".join(map(str, step.seeds))
        return command("evaluate", {"network": step.network, "out": step.out, "seeds": seeds, **step.settings})

    @hookimpl
    def ddo_features(self, name: str) -> FeatureExtractor | None:
        """Return the features of the classifier in a prepared data folder."""
        if not name.startswith(FEATURES):
            return None
        from ddo_integrations.demo.data import Digits

        return Digits(Path(name.removeprefix(FEATURES))).features


class FinetuningLoss:
    """The loss of a DDO run: the objective, applied to the likelihoods of target and reference."""

    def __init__(self, session: Session, family: Family):
        self.session, self.family = session, family
        self.trains_on = session.objective.trains_on
        self.reference = session.reference.network if self.trains_on == "both" else None
        self.paired = session.options["ddo_noise"] == "paired"

    def __call__(self, network: nn.Module, real: Tensor, labels: Tensor, step: int) -> Tensor:
        fakes = self.session.fakes
        if self.trains_on == "fakes":
            real, labels, fakes = *self._drawn(len(real)), None
        terms = self.family.terms(network, self.reference, real, labels, fakes, self.paired)
        return self.session.judge(terms, step).mean()

    def _drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw fakes that take the place of real samples."""
        assert self.session.fakes is not None
        samples, labels = self.session.fakes.draw(count)
        assert labels is not None
        return samples, labels


def command(module: str, settings: Mapping[str, Any]) -> Command:
    """Return the command that runs one of the demo's scripts."""
    return module_command(f"ddo_integrations.demo.{module}", flags(settings))


integration = DigitsIntegration()
