"""The base class of an integration: its methods answer the hooks for one upstream."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddo_plugin.hooks.hookspecs import PROJECT, hookimpl
from ddo_plugin.hooks.types import Upstream

if TYPE_CHECKING:
    import click

    from ddo_plugin.base.commands import Command
    from ddo_plugin.hooks.types import (
        Effort,
        EvaluationStep,
        Fakes,
        Generator,
        NetworkCount,
        OnlineFakes,
        Reference,
        RefsetStep,
        RoundStep,
    )

PREFIX = "ddo_"  # the hook `ddo_options` calls the method `options`, and so on
MARKER = f"{PROJECT}_impl"  # the attribute that `hookimpl` sets on a function
SIMILAR = 0.8  # from this similarity on, an unknown method is taken for a misspelt one


class Integration:
    """The integration of one upstream; a subclass sets `upstream` and overrides the methods that it needs.

    An instance is the plugin that an entry point names. Each hook asks its method only if the call is about this
    upstream. Hooks that concern no single upstream, such as `ddo_features`, are added to a subclass with `hookimpl`.
    """

    upstream: Upstream

    # -- methods to override; the defaults answer that there is nothing -------------------------------------------

    def options(self) -> Sequence[click.Option]:
        """Return the options that the training script gains; their names start with `--ddo`."""
        return []

    def configure(self, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
        """Change the configuration that the training script built into that of a DDO run."""

    def loader(self, batches: Iterable[Any], steps: int) -> tuple[Iterable[Any], int] | None:
        """Return the batches that a DDO run trains on, and their number, for loops that count in batches."""

    def reference(self, source: str, options: Mapping[str, Any]) -> Reference | None:
        """Load and freeze the reference network from `source`, a path or URL."""

    def fakes(self, source: str | None, reference: Reference, options: Mapping[str, Any]) -> Fakes | OnlineFakes | None:
        """Open the path in `--ddo-fakes`, if it is not a reference set. Reference sets are opened before this call."""

    def generator_options(self) -> Sequence[click.Option]:
        """Return the options of `ddo sample` and `ddo refset make` that choose how a network is sampled."""
        return []

    def generator(self, source: str, options: Mapping[str, Any]) -> Generator | None:
        """Load the network at `source`, a path or URL, to be sampled with these options."""

    def convert(self, source: Path, out: Path, like: Path | None) -> str | None:
        """Write the network in `source` to `out` in upstream's other format, and return a line that says so."""

    def merge(self, a: Path, b: Path, outs: Mapping[Path, float], options: Mapping[str, Any]) -> str | None:
        """Merge two networks into the files `outs`, each with its w, and return a line that describes the network."""

    def evaluation_options(self) -> Sequence[click.Parameter]:
        """Return the options of the command that evaluates a network."""
        return []

    def refset_command(self, step: RefsetStep) -> Command | None:
        """Return the command that makes a reference set."""

    def round_command(self, step: RoundStep) -> Command | None:
        """Return the command that runs a round of finetuning."""

    def evaluation_command(self, step: EvaluationStep) -> Command | None:
        """Return the command that evaluates a network."""

    def count(self, network: Path) -> NetworkCount | None:
        """Count the operations and the memory of a network, for `ddo plan`."""

    def effort(self, step: RefsetStep | RoundStep | EvaluationStep, network: NetworkCount, gpus: int) -> Effort | None:
        """Return what this step costs with such a network on this number of GPUs, for `ddo plan`."""

    # -- the hooks --------------------------------------------------------------------------------------------------

    def answers(self, hook: str) -> bool:
        """Return whether this integration answers the hook: by an overridden method, or by a hook of its own."""
        method = hook.removeprefix(PREFIX)
        default = getattr(Integration, method, None)
        return default is None or _overrides(self, method) or _overrides(self, hook)

    @hookimpl
    def ddo_upstreams(self) -> Sequence[Upstream]:
        return [self.upstream]

    @hookimpl
    def ddo_options(self, upstream: str) -> Sequence[click.Option]:
        return self.options() if upstream == self.upstream.name else []

    @hookimpl
    def ddo_configure(self, upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> bool | None:
        if upstream != self.upstream.name:
            return None
        self.configure(config, options)
        return True

    @hookimpl
    def ddo_loader(self, upstream: str, batches: Iterable[Any], steps: int) -> tuple[Iterable[Any], int] | None:
        return self.loader(batches, steps) if upstream == self.upstream.name else None

    @hookimpl
    def ddo_reference(self, upstream: str, source: str, options: Mapping[str, Any]) -> Reference | None:
        return self.reference(source, options) if upstream == self.upstream.name else None

    @hookimpl(trylast=True)  # a reference set is a folder too, and is tried first
    def ddo_fakes(
        self, upstream: str, source: str | None, reference: Reference, options: Mapping[str, Any]
    ) -> Fakes | OnlineFakes | None:
        return self.fakes(source, reference, options) if upstream == self.upstream.name else None

    @hookimpl
    def ddo_generator_options(self, upstream: str) -> Sequence[click.Option]:
        return self.generator_options() if upstream == self.upstream.name else []

    @hookimpl
    def ddo_generator(self, upstream: str, source: str, options: Mapping[str, Any]) -> Generator | None:
        return self.generator(source, options) if upstream == self.upstream.name else None

    @hookimpl
    def ddo_convert(self, source: Path, out: Path, like: Path | None) -> str | None:
        return self.convert(source, out, like)

    @hookimpl
    def ddo_merge(
        self, upstream: str, a: Path, b: Path, outs: Mapping[Path, float], options: Mapping[str, Any]
    ) -> str | None:
        return self.merge(a, b, outs, options) if upstream == self.upstream.name else None

    @hookimpl
    def ddo_evaluation_options(self, upstream: str) -> Sequence[click.Parameter]:
        return self.evaluation_options() if upstream == self.upstream.name else []

    @hookimpl
    def ddo_refset_command(self, step: RefsetStep) -> Command | None:
        return self.refset_command(step) if step.upstream == self.upstream.name else None

    @hookimpl
    def ddo_round_command(self, step: RoundStep) -> Command | None:
        return self.round_command(step) if step.upstream == self.upstream.name else None

    @hookimpl
    def ddo_evaluation_command(self, step: EvaluationStep) -> Command | None:
        return self.evaluation_command(step) if step.upstream == self.upstream.name else None

    @hookimpl
    def ddo_count(self, upstream: str, network: Path) -> NetworkCount | None:
        return self.count(network) if upstream == self.upstream.name else None

    @hookimpl
    def ddo_effort(
        self, step: RefsetStep | RoundStep | EvaluationStep, network: NetworkCount, gpus: int
    ) -> Effort | None:
        return self.effort(step, network, gpus) if step.upstream == self.upstream.name else None


def misfit(plugin: object) -> str:
    """Return what is wrong with a plugin that shall be an integration; an empty string for any other plugin.

    pluggy checks the hooks only, and these an integration inherits. Its own mistakes would show in a run, or never.
    """
    if isinstance(plugin, type) and issubclass(plugin, Integration):
        return f"{plugin.__name__} is a class; name an instance of it in the entry point"
    if not isinstance(plugin, Integration):
        return ""
    if not isinstance(getattr(plugin, "upstream", None), Upstream):
        return f"{type(plugin).__name__} must set `upstream` to an Upstream"
    kind = type(plugin)
    public = [name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))]
    problems = (_problem(plugin, name) for name in public if _overrides(plugin, name))
    return next(filter(None, problems), "")


def _problem(plugin: Integration, name: str) -> str:
    """Return what is wrong with a method that an integration adds or overrides."""
    method, default = getattr(plugin, name), getattr(Integration, name, None)
    title = f"{type(plugin).__name__}.{name}"
    if name.startswith(PREFIX):
        return "" if hasattr(method, MARKER) else f"{title} is not decorated with hookimpl"
    if default is None:
        known = [hook.removeprefix(PREFIX) for hook in vars(Integration) if hook.startswith(PREFIX)]
        nearest = difflib.get_close_matches(name, known, 1, cutoff=SIMILAR)
        return f"{title} is no method of Integration; did you mean '{nearest[0]}'?" if nearest else ""
    expected = list(inspect.signature(default).parameters)[1:]
    try:
        inspect.signature(method).bind(*expected)
    except TypeError:
        return f"{title} must take the arguments ({', '.join(expected)})"
    return ""


def _overrides(plugin: Integration, name: str) -> bool:
    return getattr(type(plugin), name, None) is not getattr(Integration, name, None)
