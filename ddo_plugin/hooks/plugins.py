"""The plugin manager. Our own plugins come through entry points too, as other people's plugins do."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks import hookspecs
from ddo_plugin.hooks.integration import PREFIX, Integration, misfit
from ddo_plugin.hooks.types import Upstream

GROUP = "ddo_plugin"
OWN_DISTRIBUTION = "ddo-plugin"
TRACE_VARIABLE = "DDO_TRACE_HOOKS"


@dataclass(frozen=True)
class Listing:
    """A plugin as `ddo plugins` shows it."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    error: str = ""  # why it could not be loaded


class Manager(pluggy.PluginManager):
    """A pluggy manager that leaves out plugins that cannot be imported, and lists all plugins with their errors."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.add_hookspecs(hookspecs)
        self.listings: list[Listing] = []

    def register(self, plugin: Any, name: str | None = None) -> str | None:
        """Register a plugin. Refuse an integration that would fail in a run, or never be asked."""
        if problem := misfit(plugin):
            raise pluggy.PluginValidationError(plugin, problem)
        return super().register(plugin, name)

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """Leave out the hooks that an integration has only inherited, so that listings and traces do not name it."""
        if isinstance(plugin, Integration) and name.startswith(PREFIX) and not plugin.answers(name):
            return None
        return super().parse_hookimpl_opts(plugin, name)

    def load(self, points: Iterable[EntryPoint]) -> None:
        """Register the plugins of these entry points; refuse plugins that do not fit the hooks."""
        for point in sorted(points, key=_own_first):
            name, distribution, version = point.name, *_origin(point)
            try:
                plugin = point.load()
                self.register(plugin, name)
            except pluggy.PluginValidationError as error:
                raise UserError(
                    f"plugin '{name}' ({distribution}) does not fit the hooks: {_one_line(error)}"
                ) from error
            except Exception as error:  # importing other people's code may raise anything
                reason = f"{type(error).__name__}: {_one_line(error)}"
                self.listings.append(Listing(name, distribution, version, error=reason))
                print(f"ddo: plugin '{name}' ({distribution}) is not loaded: {reason}", file=sys.stderr)
            else:
                hooks = tuple(sorted(caller.name for caller in self.get_hookcallers(plugin) or ()))
                self.listings.append(Listing(name, distribution, version, hooks))
        self._refuse_unknown_hooks()

    def _refuse_unknown_hooks(self) -> None:
        for caller in [caller for caller in vars(self.hook).values() if isinstance(caller, pluggy.HookCaller)]:
            if not caller.has_spec():
                known = sorted(c.name for c in vars(self.hook).values() if isinstance(c, pluggy.HookCaller) and c.spec)
                nearest = difflib.get_close_matches(caller.name, known, 1, cutoff=0)[0]
                owner = caller.get_hookimpls()[0].plugin_name
                raise UserError(
                    f"plugin '{owner}' implements the unknown hook '{caller.name}'; did you mean '{nearest}'?"
                )
        self.check_pending()

    def print_calls(self) -> None:
        """Print every hook call, the plugins that answer it, and the result."""

        def before(hook_name: str, hook_impls: Any, kwargs: Any) -> None:
            arguments = ", ".join(f"{name}={_short(value)}" for name, value in kwargs.items())
            answering = ", ".join(impl.plugin_name for impl in reversed(hook_impls)) or "nobody"
            print(f"[hook] {hook_name}({arguments}) -> {answering}", file=sys.stderr)

        def after(outcome: Any, hook_name: str, hook_impls: Any, kwargs: Any) -> None:
            result = f"raised {outcome.exception!r}" if outcome.exception else _short(outcome.get_result())
            print(f"[hook] {hook_name} = {result}", file=sys.stderr)

        self.add_hookcall_monitoring(before, after)


def build(points: Iterable[EntryPoint]) -> Manager:
    """Return a manager with these plugins."""
    manager = Manager()
    if os.environ.get(TRACE_VARIABLE, "0") not in ("", "0"):
        manager.print_calls()
    manager.load(points)
    return manager


@lru_cache(maxsize=1)
def manager() -> Manager:
    """Return the manager of this process, with every installed plugin."""
    return build(entry_points(group=GROUP))


def upstreams() -> list[Upstream]:
    """Return the upstreams of all installed plugins, first-registered plugin first."""
    return list(collect(manager().hook.ddo_upstreams()))


def upstreams_by_name() -> dict[str, Upstream]:
    """Return the upstreams by name. If two have the same name, that of the later plugin counts, as in hooks."""
    return {upstream.name: upstream for upstream in upstreams()}


def collect(results: Iterable[Iterable[Any]]) -> Iterator[Any]:
    """Yield the elements of a hook's answers, which are sequences; the plugin that registered first comes first."""
    for result in reversed(list(results)):
        yield from result


def _origin(point: EntryPoint) -> tuple[str, str]:
    distribution = getattr(point, "dist", None)
    return (distribution.name, distribution.version) if distribution else ("?", "?")


def _own_first(point: EntryPoint) -> tuple[bool, bool, str]:
    """Sort the built-ins first, then our other plugins: pluggy lets a later plugin's answer take precedence."""
    return _origin(point)[0] != OWN_DISTRIBUTION, point.name != "builtin", point.name


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _short(value: Any, limit: int = 80) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
