"""The few names that the inserted lines of an upstream call.

A script that is a click command calls `options` and `configure`; one that parses its command line by argparse calls
`add_arguments` and `read_arguments`, and `loader` once it has its data.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

import click

from ddo_plugin.base.errors import UserError, in_one_line
from ddo_plugin.checkouts import compat
from ddo_plugin.finetuning import argparse_options
from ddo_plugin.finetuning.options import ddo_values
from ddo_plugin.hooks import plugins

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
            argparse_options.refuse_empty(kwargs, _options(upstream))
            if kwargs.get("ddo") is None:
                _refuse_orphans(_typed(ddo_values(kwargs)))
                return function(*args, **kwargs)
            _guard.arm(upstream)
            try:
                return function(*args, **kwargs)
            finally:
                _guard.disarm()

        decorated: Any = guarded
        for option in reversed(_options(upstream)):
            ready: Any = lambda *_, made=option, **__: made  # noqa: E731  # click wants a class to make options with
            decorated = click.option(cls=ready)(decorated)
        return decorated

    return add_options


def configure(upstream: str, config: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """Called once upstream has built its configuration: a DDO run changes it, any other run leaves it alone."""
    if options.get("ddo") is None:
        return  # if --ddo was given all the same, these are other options than the script's: the guard stays armed
    _guard.disarm()
    if not any(plugins.manager().hook.ddo_configure(upstream=upstream, config=config, options=options)):
        raise UserError(f"--ddo={options['ddo']}: no installed plugin finetunes {upstream}; `ddo plugins` lists them")


def add_arguments(upstream: str, parser: argparse.ArgumentParser) -> None:
    """Adds the DDO group to a parser, as `options` does to a command."""
    with in_one_line():
        compat.apply()
        argparse_options.add(parser, _options(upstream))


def read_arguments(upstream: str, parsed: Any, unknown: Sequence[str] = ()) -> None:
    """Converts and checks what was parsed into `parsed`, and configures a DDO run: its attributes are the config.

    `unknown` is what the script's parser left over. Upstream has done nothing yet: what is refused here leaves no
    trace.
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
    """For an integration whose run depends on `loader`: until it is called, no optimizer makes a step."""
    _guard.arm(upstream)


def loader(upstream: str, batches: Iterable[Any], steps: int) -> tuple[Iterable[Any], int]:
    """The batches of real data and how many of them the loop is to take: upstream's, or a DDO run's."""
    if not _guard.armed:
        return batches, steps
    with in_one_line():
        answer = plugins.manager().hook.ddo_loader(upstream=upstream, batches=batches, steps=steps)
        if answer is None:
            raise UserError(f"no installed plugin hands out the data of a run of {upstream}; `ddo plugins` lists them")
    _guard.disarm()
    return answer


def _options(upstream: str) -> list[click.Option]:
    return list(plugins.collect(plugins.manager().hook.ddo_options(upstream=upstream)))


def _typed(given: Mapping[str, Any]) -> list[str]:
    """Which options the user typed, instead of leaving them at their defaults."""
    context = click.get_current_context(silent=True)
    if context is None:
        return []
    return [name for name in given if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]


def _refuse_orphans(typed: Sequence[str]) -> None:
    """--ddo-alpha and its like without --ddo would be ignored; say so instead."""
    if typed:
        flags = ", ".join("--" + name.replace("_", "-") for name in typed)
        raise UserError(f"{flags}: no effect without --ddo=NETWORK; add it, or drop the option")


class _Guard:
    """Refuses the first optimizer step of a run whose `configure` never ran."""

    def __init__(self) -> None:
        self._hook: Any = None

    def arm(self, upstream: str) -> None:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        def refuse(*_: Any) -> None:
            self.disarm()
            with in_one_line():
                raise UserError(
                    f"--ddo was given, but {upstream}'s script never handed it to ddo_plugin.inject, so this would be "
                    "a run without DDO; the patch is incomplete: `ddo status` tells, `ddo apply` mends"
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
