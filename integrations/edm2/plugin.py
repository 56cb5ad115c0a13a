"""The EDM2 integration as a plugin."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from ddo_integrations.edm2.effort import STEPS, effort
from ddo_integrations.nvlabs.effort import count
from ddo_integrations.nvlabs.execution import execution_options
from ddo_integrations.nvlabs.family import FAMILY
from ddo_plugin import (
    Command,
    Effort,
    EvaluationStep,
    Fakes,
    Finite,
    FloatList,
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
WIDEST = 0.28  # the relative standard deviation of a power function stays below 1/√12


class EDM2(Integration):
    """Finetunes, samples and evaluates the networks of NVlabs/edm2."""

    upstream = Upstream(
        name="edm2",
        title="EDM2 (NVlabs/edm2)",
        script="train_edm2.py",
        landmarks={
            "train_edm2.py": r"^def setup_training_config\(",
            "training/networks_edm2.py": r"^class Precond\b",
            "training/phema.py": r"^class PowerFunctionEMA\b",
            "training/training_loop.py": r"^class EDM2Loss\b",
        },
        patch=PATCHES / "edm2.patch",
        digests=PATCHES / "edm2.json",
        paths=("data", "ref", "gnet", "real"),
        reserved={"outdir": "self-play sets it"},
        states=("training-state-*.pt",),
        family=FAMILY,
        compat=("sampler", "weights-only", "sqrtm", "distutils", "numpy-pickles", "cpu"),
        network_classes={"Precond": "training.networks_edm2"},
    )

    def options(self) -> Sequence[click.Option]:
        rampup = click.Option(
            ["--ddo-rampup"],
            type=Number(0),
            default=1.0,
            show_default=True,
            metavar="MIMG",
            help="Increase the learning rate linearly from 0 over this many million images.",
        )
        ema = click.Option(
            ["--ddo-ema"],
            default="0.05",
            show_default=True,
            type=FloatList(),
            callback=_widths,
            metavar="STD[,STD]",
            help="Relative standard deviations of the EMA profiles, separated by commas. A snapshot has one file for "
            "each profile.",
        )
        return [
            *finetuning_options(alpha=4.0, beta=0.05),
            noise_option(),
            compile_option(),
            *pickle_options(),
            continue_option(),
            rampup,
            ema,
        ]

    def configure(self, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
        from ddo_integrations.edm2.configuration import configure

        configure(config, options)

    def reference(self, source: str, options: Mapping[str, Any]) -> Reference:
        from ddo_integrations.edm2.networks import load_settled

        return load_settled(source, options, self.upstream)

    def fakes(self, source: str | None, reference: Reference, options: Mapping[str, Any]) -> Fakes | None:
        from ddo_integrations.nvlabs.image_fakes import open_images

        return None if source is None else open_images(Path(source), reference)

    def generator_options(self) -> Sequence[click.Option]:
        return [*sampler_options(STEPS), *_guidance_options(), *execution_options(), *pickle_options()]

    def generator(self, source: str, options: Mapping[str, Any]) -> Generator:
        from ddo_integrations.edm2.generator import generator

        return generator(source, options, self.upstream)

    def merge(self, a: Path, b: Path, outs: Mapping[Path, float], options: Mapping[str, Any]) -> str:
        from ddo_integrations.edm2.merging import merge

        return merge(a, b, outs, options, self.upstream)

    def evaluation_options(self) -> Sequence[click.Parameter]:
        from ddo_integrations.edm2.evaluate import main

        return main.params

    def refset_command(self, step: RefsetStep) -> Command:
        from ddo_plugin import refset_command

        return refset_command(step)

    def round_command(self, step: RoundStep) -> Command:
        from ddo_plugin import round_command

        return round_command(step, self.upstream.script, {"outdir": step.out})

    def evaluation_command(self, step: EvaluationStep) -> Command:
        from ddo_plugin import evaluation_command

        return evaluation_command("ddo_integrations.edm2.evaluate", step)

    def count(self, network: Path) -> NetworkCount:
        return count(network, self.upstream)

    def effort(self, step: RefsetStep | RoundStep | EvaluationStep, network: NetworkCount, gpus: int) -> Effort:
        return effort(step, network, gpus)


def _widths(context: click.Context, option: click.Parameter, widths: list[float]) -> list[float]:
    """Refuse numbers that the EMA or the names of snapshots cannot express."""
    value = ",".join(map(str, widths))
    if not all(0 < width <= WIDEST for width in widths):
        raise click.BadParameter(f"{value!r}: each number must be above 0 and at most {WIDEST}")
    if len({f"{width:.3f}" for width in widths}) < len(widths):
        raise click.BadParameter(f"{value!r}: two numbers agree to three digits, so their snapshots would share a name")
    return widths


def _guidance_options() -> list[click.Option]:
    """Return the options that guide the network by a second one (autoguidance or classifier-free guidance)."""
    return [
        click.Option(["--gnet"], metavar="PKL|URL", help="Guiding network (autoguidance). Needs --guidance."),
        click.Option(
            ["--gnet-sha256"], metavar="HEX", help="Expected SHA-256 of the guiding network, verified before loading."
        ),
        click.Option(
            ["--guidance"], type=Finite(), default=1.0, show_default=True, help="Guidance scale; 1 disables guidance."
        ),
    ]


integration = EDM2()
