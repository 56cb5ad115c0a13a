"""The functions that the lines inserted into an upstream call.

A script that is a click command calls `options` and `configure`. A script that uses argparse calls `add_arguments` and
`read_arguments`, and `loader` once it has its data.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar, cast

import click

from ddo_plugin.base.errors import UserError, in_one_line, system_errors_in_one_line
from ddo_plugin.base.interrupts import end_process_when_interrupted
from ddo_plugin.checkouts import compat
from ddo_plugin.finetuning import argparse_options
from ddo_plugin.finetuning.options import add_options, ddo_values
from ddo_plugin.hooks import plugins

F = TypeVar("F", bound=Callable[..., Any])

with in_one_line():  # this loads the plugins, one of which may not fit the hooks
    compat.apply_for_imports()  # the line that imports this module stands before upstream's own imports


def options(upstream: str) -> Callable[[F], F]:
    """Return a decorator that adds the DDO options to a click command; it stands below the command's own options.

    A run with --ddo that never reaches `configure` would silently train without DDO, so it is stopped before its first
    optimizer step.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            compat.apply()  # upstream is fully imported by now and has done nothing yet
            argparse_options.refuse_empty(kwargs, _options(upstream))
            if kwargs.get("ddo") is None:
                _refuse_orphans(_typed(ddo_values(kwargs)))
                return function(*args, **kwargs)
            _guard.arm(upstream)
            try:
                with system_errors_in_one_line():
                    return function(*args, **kwargs)
            finally:
                _guard.disarm()

        add_options(guarded, _options(upstream))
        return cast(F, guarded)

    return decorate


def configure(upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """Change the configuration that upstream built into that of a DDO run; without --ddo, leave it alone."""
    if options.get("ddo") is None:
        return  # if --ddo was typed, these are not the script's options, and the guard stays armed
    _guard.disarm()
    end_process_when_interrupted()
    if not any(plugins.manager().hook.ddo_configure(upstream=upstream, config=config, options=options)):
        raise UserError(f"--ddo={options['ddo']}: no installed plugin finetunes {upstream}; see `ddo plugins`")


def add_arguments(upstream: str, parser: argparse.ArgumentParser) -> None:
    """Add the DDO options to an argparse parser, as `options` does to a click command."""
    with in_one_line():
        compat.apply()
        argparse_options.add(parser, _options(upstream))


def read_arguments(upstream: str, parsed: Any, unknown: Sequence[str] = ()) -> None:
    """Convert and check the DDO options in `parsed`, and configure a DDO run; the attributes are the configuration.

    `unknown` holds the arguments that the script's parser did not know. Upstream has done nothing yet, so an error
    here leaves nothing behind.
    """
    config, options = vars(parsed), _options(upstream)
    with in_one_line():
        argparse_options.refuse_misspelt([*unknown, *sys.argv[1:]], options)
        typed = ddo_values(config)
        config.update(argparse_options.read(typed, options))
        if config["ddo"] is None:
            _refuse_orphans(list(typed))
            return
        configure(upstream, config, config)


def await_loader(upstream: str) -> None:
    """Stop the run at its first optimizer step unless `loader` was called before; for integrations that need it."""
    _guard.arm(upstream)


def loader(upstream: str, batches: Iterable[Any], steps: int) -> tuple[Iterable[Any], int]:
    """Return the batches of real data and their number: upstream's own, or those of a DDO run."""
    if not _guard.armed:
        return batches, steps
    with in_one_line():
        answer = plugins.manager().hook.ddo_loader(upstream=upstream, batches=batches, steps=steps)
        if answer is None:
            raise UserError(f"no installed plugin provides the batches of {upstream}; see `ddo plugins`")
    _guard.disarm()
    return answer


def _options(upstream: str) -> list[click.Option]:
    return list(plugins.collect(plugins.manager().hook.ddo_options(upstream=upstream)))


def _typed(options: Mapping[str, Any]) -> list[str]:
    """Return the options that the user typed instead of leaving them at their defaults."""
    context = click.get_current_context(silent=True)
    if context is None:
        return []
    return [name for name in options if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]


def _refuse_orphans(typed: Sequence[str]) -> None:
    """Refuse options such as --ddo-alpha without --ddo, which would be ignored."""
    if typed:
        flags = ", ".join("--" + name.replace("_", "-") for name in typed)
        raise UserError(f"{flags}: no effect without --ddo=NETWORK; add --ddo, or drop this")


class _Guard:
    """Refuses the first optimizer step of a run that never called `configure`."""

    def __init__(self) -> None:
        self._hook: Any = None

    def arm(self, upstream: str) -> None:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        def refuse(*_: Any) -> None:
            self.disarm()
            with in_one_line():
                raise UserError(
                    f"--ddo was given, but {upstream}'s script never passed it to ddo_plugin.inject, so this run would "
                    "train without DDO; the patch is incomplete: see `ddo status`, and run `ddo apply` to repair it"
                )

        self.disarm()
        self._hook = register_optimizer_step_pre_hook(refuse)

    @property
    def armed(self) -> bool:
        return self._hook is not None

    def disarm(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


_guard = _Guard()
