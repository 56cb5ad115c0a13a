"""The VAR integration as a plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from ddo_integrations.var.compat import FIXES
from ddo_integrations.var.compat.family import FAMILY
from ddo_integrations.var.effort import effort
from ddo_integrations.var.names import NEEDS
from ddo_integrations.var.options import fakes_options, no_compile_option, round_options, sampling_options
from ddo_plugin import (
    Command,
    Effort,
    EvaluationStep,
    Generator,
    Integration,
    NetworkCount,
    OnlineFakes,
    Reference,
    RefsetStep,
    RoundStep,
    Upstream,
    continue_option,
    finetuning_options,
    sha256_option,
)

PATCHES = files("ddo_patches")


class VAR(Integration):
    """Finetunes, samples and evaluates the networks of FoundationVision/VAR."""

    upstream = Upstream(
        name="var",
        title="VAR (FoundationVision/VAR)",
        script="train.py",
        landmarks={
            "train.py": r"^def main_training\(",
            "trainer.py": r"^class VARTrainer\b",
            "models/var.py": r"^class VAR\b",
            "utils/arg_util.py": r"^class Args\b",
        },
        patch=PATCHES / "var.patch",
        digests=PATCHES / "var.json",
        needs=NEEDS,
        paths=("data_path", "ref", "vae"),
        reserved={"local_out_dir_path": "self-play sets it", "ddo-compile": "set tfast, VAR's own option"},
        states=("ar-ckpt*.pth",),
        family=FAMILY,
        compat=("cpu",),
        fixes=FIXES,
    )

    def options(self) -> Sequence[click.Option]:
        common = finetuning_options(alpha=50.0, beta=0.02)
        return [*common, sha256_option(), continue_option(), no_compile_option(), *round_options(), *fakes_options()]

    def configure(self, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
        from ddo_integrations.var.configuration import configure

        configure(config, options)

    def loader(self, batches: Iterable[Any], steps: int) -> tuple[Iterable[Any], int]:
        from ddo_integrations.var import schedule, trainer
        from ddo_plugin import current_session

        session = current_session(self.upstream.name)
        position = session.position
        if session.options["ddo_schedule"] == "epoch":
            schedule.lay_over(max(steps, position.batches))
        trainer.install(session.reference.info.classes)
        return position.ahead(batches), position.batches

    def reference(self, source: str, options: Mapping[str, Any]) -> Reference:
        from ddo_integrations.var.networks import load_reference

        return load_reference(source, options["ddo_sha256"], "--ddo")

    def fakes(self, source: str | None, reference: Reference, options: Mapping[str, Any]) -> OnlineFakes | None:
        if source is not None:
            return None
        return OnlineFakes({"online": True, "reference_sha256": reference.sha256})

    def generator_options(self) -> Sequence[click.Option]:
        return [*sampling_options(), sha256_option()]

    def generator(self, source: str, options: Mapping[str, Any]) -> Generator:
        from ddo_integrations.var.generator import generator

        return generator(source, options)

    def convert(self, source: Path, out: Path, like: Path | None) -> str | None:
        from ddo_integrations.var.convert import convert

        return convert(source, out, like)

    def merge(self, a: Path, b: Path, outs: Mapping[Path, float], options: Mapping[str, Any]) -> str:
        from ddo_integrations.var.merging import merge

        return merge(a, b, outs)

    def evaluation_options(self) -> Sequence[click.Parameter]:
        from ddo_integrations.var.evaluate import main

        return main.params

    def refset_command(self, step: RefsetStep) -> Command:
        from ddo_plugin import refset_command

        return refset_command(step)

    def round_command(self, step: RoundStep) -> Command:
        from ddo_plugin import round_command

        return round_command(step, self.upstream.script, {"local_out_dir_path": step.out})

    def evaluation_command(self, step: EvaluationStep) -> Command:
        from ddo_plugin import evaluation_command

        return evaluation_command("ddo_integrations.var.evaluate", step)

    def count(self, network: Path) -> NetworkCount:
        from ddo_integrations.var.counting import count

        return count(network)

    def effort(self, step: RefsetStep | RoundStep | EvaluationStep, network: NetworkCount, gpus: int) -> Effort:
        return effort(step, network, gpus)


integration = VAR()
