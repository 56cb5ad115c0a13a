"""The few names that the inserted lines of an upstream call: `options` and `configure`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeVar

import click

from ddo_plugin import compat, plugins
from ddo_plugin.errors import UserError
from ddo_plugin.options import ddo_values

F = TypeVar("F", bound=Callable[..., Any])

compat.apply_for_imports()  # the line that imports this module stands before upstream's own imports


def options(upstream: str) -> Callable[[F], F]:
    """Decorator below a click command's own options: adds the DDO group.

    A run that was given --ddo but never reaches `configure` would train without DDO and without a word; it is
    stopped before its first optimizer step.
    """

    def add_options(function: F) -> F:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            compat.apply()  # here upstream is imported whole and has done nothing yet
            given = {name: value for name, value in ddo_values(kwargs).items() if value is not None}
            if kwargs.get("ddo") is None:
                _refuse_orphans(given)
                return function(*args, **kwargs)
            _guard.arm(upstream)
            try:
                return function(*args, **kwargs)
            finally:
                _guard.disarm()

        decorated: Any = guarded
        for option in reversed(list(plugins.collect(plugins.manager().hook.ddo_options(upstream=upstream)))):
            ready: Any = lambda *_, made=option, **__: made  # noqa: E731  # click wants a class to make options with
            decorated = click.option(cls=ready)(decorated)
        return decorated

    return add_options


def configure(upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """Called once upstream has built its configuration: a DDO run changes it, any other run leaves it alone."""
    if options.get("ddo") is None:
        return  # if --ddo was given all the same, these are other options than the script's: the guard stays armed
    _guard.disarm()
    plugins.manager().hook.ddo_configure(upstream=upstream, config=config, options=options)


def _refuse_orphans(given: Mapping[str, Any]) -> None:
    """--ddo-alpha and its like without --ddo would be ignored; say so instead."""
    context = click.get_current_context(silent=True)
    if context is None:
        return
    typed = [name for name in given if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if typed:
        flags = ", ".join("--" + name.replace("_", "-") for name in typed)
        raise UserError(f"{flags} has no effect without --ddo=NETWORK; add it, or drop the option")


class _Guard:
    """Refuses the first optimizer step of a run whose `configure` never ran."""

    def __init__(self) -> None:
        self._hook: Any = None

    def arm(self, upstream: str) -> None:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        def refuse(*_: Any) -> None:
            raise UserError(
                f"--ddo was given, but {upstream}'s script never handed it to ddo_plugin.inject.configure, so this "
                "would be a run without DDO; the patch is incomplete: `ddo status` tells, `ddo apply` mends"
            )

        self.disarm()
        self._hook = register_optimizer_step_pre_hook(refuse)

    def disarm(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


_guard = _Guard()
