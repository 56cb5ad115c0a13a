"""The EDM integration as a plugin."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from ddo_integrations.edm.effort import STEPS, effort
from ddo_integrations.nvlabs.effort import count
from ddo_integrations.nvlabs.execution import execution_options
from ddo_integrations.nvlabs.family import FAMILY
from ddo_plugin import (
    Command,
    Effort,
    EvaluationStep,
    Fakes,
    Generator,
    Integration,
    NetworkCount,
    Number,
    Reference,
    RefsetStep,
    RoundStep,
    Upstream,
    compile_option,
    continue_option,
    finetuning_options,
    noise_option,
    pickle_options,
    sampler_options,
)

PATCHES = files("ddo_patches")
PRECONDITIONERS = ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond")


class EDM(Integration):
    """Finetunes, samples and evaluates the networks of NVlabs/edm."""

    upstream = Upstream(
        name="edm",
        title="EDM (NVlabs/edm)",
        script="train.py",
        landmarks={
            "train.py": r"^def main\(",
            "training/loss.py": r"^class EDMLoss\b",
            "training/networks.py": r"^class EDMPrecond\b",
            "training/training_loop.py": r"^def training_loop\(",
        },
        patch=PATCHES / "edm.patch",
        digests=PATCHES / "edm.json",
        paths=("data", "ref", "real"),
        reserved={
            "outdir": "self-play sets it",
            "resume": "a round starts from its reference and resumes by itself",
            "transfer": "a round starts from its reference",
        },
        states=("training-state-*.pt",),
        family=FAMILY,
        compat=("sampler", "weights-only", "sqrtm", "distutils", "numpy-pickles", "cpu"),
        network_classes=dict.fromkeys(PRECONDITIONERS, "training.networks"),
    )

    def options(self) -> Sequence[click.Option]:
        rampup = click.Option(
            ["--ddo-rampup"],
            type=Number(0),
            metavar="MIMG",
            help="Increase the learning rate linearly from 0 over this many million images.  [default: the whole "
            "run; 10 for neon]",
        )
        return [
            *finetuning_options(alpha=4.0, beta=0.05),
            noise_option(),
            compile_option(),
            *pickle_options(),
            continue_option(),
            rampup,
        ]

    def configure(self, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
        from ddo_integrations.edm.configuration import configure

        configure(config, options)

    def reference(self, source: str, options: Mapping[str, Any]) -> Reference:
        from ddo_plugin import load_reference

        return load_reference(source, options, self.upstream)

    def fakes(self, source: str | None, reference: Reference, options: Mapping[str, Any]) -> Fakes | None:
        from ddo_integrations.nvlabs.image_fakes import open_images

        return None if source is None else open_images(Path(source), reference)

    def generator_options(self) -> Sequence[click.Option]:
        return [*sampler_options(STEPS), *_ablation_options(), *execution_options(), *pickle_options()]

    def generator(self, source: str, options: Mapping[str, Any]) -> Generator:
        from ddo_integrations.edm.generator import generator

        return generator(source, options, self.upstream)

    def merge(self, a: Path, b: Path, outs: Mapping[Path, float], options: Mapping[str, Any]) -> str:
        from ddo_integrations.nvlabs.merging import merge

        return merge(a, b, outs, options, self.upstream)

    def evaluation_options(self) -> Sequence[click.Parameter]:
        from ddo_integrations.edm.evaluate import main

        return main.params

    def refset_command(self, step: RefsetStep) -> Command:
        from ddo_plugin import refset_command

        return refset_command(step)

    def round_command(self, step: RoundStep) -> Command:
        from ddo_plugin import round_command

        return round_command(step, self.upstream.script, {"outdir": step.out, "nosubdir": True})

    def evaluation_command(self, step: EvaluationStep) -> Command:
        from ddo_plugin import evaluation_command

        return evaluation_command("ddo_integrations.edm.evaluate", step)

    def count(self, network: Path) -> NetworkCount:
        return count(network, self.upstream)

    def effort(self, step: RefsetStep | RoundStep | EvaluationStep, network: NetworkCount, gpus: int) -> Effort:
        return effort(step, network, gpus)


def _ablation_options() -> list[click.Option]:
    """Return the options of generate.py that sample by another method in EDM's framework."""
    return [
        click.Option(
            ["--disc"],
            type=click.Choice(["vp", "ve", "iddpm", "edm"]),
            help="Time step discretization, which also sets the default range of noise levels.  [default: edm]",
        ),
        click.Option(
            ["--schedule"], type=click.Choice(["vp", "ve", "linear"]), help="Noise schedule σ(t).  [default: linear]"
        ),
        click.Option(["--scaling"], type=click.Choice(["vp", "none"]), help="Signal scaling s(t).  [default: none]"),
    ]


integration = EDM()
