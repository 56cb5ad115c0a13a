"""A round of finetuning as the command line of `ddo run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddo_plugin.base.commands import Command, module_command
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import RoundStep


def round_command(step: RoundStep, script: str, outdir: Mapping[str, Any]) -> Command:
    """Return the command that runs a round with upstream's training script; run it again to resume.

    `step.settings` are options of the script by name, and `checkout` and `torchrun` of `ddo run`. `outdir` holds the
    options that make the script write to `step.out`.
    """
    settings = dict(step.settings)
    checkout, torchrun = settings.pop("checkout", "."), settings.pop("torchrun", None)
    launch = [f"--torchrun={torchrun}"] if torchrun else []
    fakes = {} if step.fakes is None else {"ddo-fakes": step.fakes}
    objective = {"ddo-objective": step.objective, "ddo-alpha": step.alpha, "ddo-beta": step.beta}
    flags = {**outdir, **settings, "seed": step.seed, "ddo": step.reference, **fakes, **objective, "ddo-continue": True}
    bare = _bare(step.upstream) | set(outdir)
    arguments = [_flag(name, value, name in bare) for name, value in flags.items() if not (name in bare and not value)]
    return module_command("ddo_plugin", ["run", *launch, str(checkout), script, "--", *arguments])


def _bare(upstream: str) -> set[str]:
    """Return the names of our options that take no value."""
    options = plugins.collect(plugins.manager().hook.ddo_options(upstream=upstream))
    return {option.opts[0].removeprefix("--") for option in options if option.is_flag}


def _flag(name: str, value: Any, bare: bool) -> str:
    if bare and value is True:
        return f"--{name}"
    return f"--{name}={int(value) if isinstance(value, bool) else value}"
