"""What `ddo refset make` and `ddo sample` share: options that depend on the upstream, and the network they open."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks import plugins
from ddo_plugin.sampling.options import network_options

if TYPE_CHECKING:
    from ddo_plugin.base.rank_group import Ranks
    from ddo_plugin.hooks.types import Generator

META = "ddo_plugin.generating"  # where a command's context keeps upstream and arguments


class GeneratingCommand(click.Command):
    """Gains the options of the upstream, which the checkout says, or --upstream."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not any(option.name == "checkout" for option in self.params):
            self.params += network_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        told = _peek([one for one in self.params if one.name in ("checkout", "upstream")], args)
        upstream, ready = _upstream(told["checkout"], told["upstream"])
        ctx.meta[META] = (upstream, list(args))
        if not ready and not any(name in args for name in ctx.help_option_names):
            why = "whose network this is cannot be told" if upstream is None else f"--upstream={upstream} is not enough"
            raise UserError(f"{why}: run this in the checkout of its upstream, or add --checkout=PATH")
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        upstream, _ = ctx.meta.get(META, (None, []))
        if upstream is None:
            return super().get_params(ctx)
        own = list(plugins.collect(plugins.manager().hook.ddo_generator_options(upstream=upstream)))
        return [*self.params, *own, *super().get_params(ctx)[len(self.params) :]]

    def invoke(self, ctx: click.Context) -> Any:
        torchrun = ctx.params.pop("torchrun")
        if torchrun is not None:
            _become_torchrun(ctx, torchrun)
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if ctx.meta.get(META, (None,))[0] is None:
            formatter.write_paragraph()
            formatter.write_text("The options of a network's sampler are shown in its checkout, or with --upstream.")


def open_generator(network: str, options: Mapping[str, Any]) -> Generator:
    """The network that the user named, ready to be sampled."""
    upstream, _ = click.get_current_context().meta[META]
    generator = plugins.manager().hook.ddo_generator(upstream=upstream, source=network, options=options)
    if generator is None:
        raise UserError(f"--network={network}: no plugin samples networks of {upstream}; `ddo plugins` lists them")
    return generator


@contextlib.contextmanager
def ranks_on_device() -> Iterator[Ranks]:
    """Apply the compatibility fixes, choose a GPU or the CPU, and yield the ranks that torchrun started."""
    import torch

    from ddo_plugin.base.rank_group import ranks
    from ddo_plugin.checkouts import compat

    compat.apply()
    cuda = compat.upstream_device().type == "cuda"
    if cuda and not torch.cuda.is_available():
        raise UserError(
            "a GPU is asked for (DDO_DEVICE, DDO_COMPAT_OFF), but torch finds none; unset it, or DDO_DEVICE=cpu"
        )
    with ranks(cuda) as group:
        yield group


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the process as an error does, so that no temporary file stays behind; status 143, as of a shell."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _peek(wanted: list[click.Parameter], args: list[str]) -> dict[str, Any]:
    """The values of a few options; the rest is not looked at."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    peek = click.Command("peek", params=wanted, context_settings=settings, add_help_option=False)
    with peek.make_context("peek", list(args), resilient_parsing=True) as context:
        return context.params


def _upstream(checkout: Path | None, name: str | None) -> tuple[str | None, bool]:
    """The upstream's name, None if nothing says it; and whether what its networks need is importable now."""
    from ddo_plugin.checkouts.checkout import make_importable, open_checkout

    if checkout is not None:
        found = open_checkout(checkout)
        make_importable(found.root)
        if name not in (None, found.upstream.name):
            raise UserError(f"--upstream={name}, but --checkout={checkout} is one of {found.upstream.title}; drop one")
        return found.upstream.name, True
    for folder in dict.fromkeys([Path(), *map(Path, sys.path)]):
        try:
            found = open_checkout(folder)
        except UserError:
            continue
        if name in (None, found.upstream.name):
            make_importable(found.root)
            return found.upstream.name, True
    known = {one.name: one for one in plugins.collect(plugins.manager().hook.ddo_upstreams())}
    if name is None:
        return None, False
    if name not in known:
        raise UserError(f"--upstream={name}: no plugin knows it; there are {', '.join(sorted(known))}")
    return name, not known[name].landmarks  # without any it has no checkout, as the demo


def _become_torchrun(ctx: click.Context, torchrun: str) -> None:
    """The same command in several processes."""
    from ddo_plugin.base.commands import Command, torchrun_launcher
    from ddo_plugin.checkouts.run_script import become_process, interpreter_options, launched

    _, args = ctx.meta[META]
    at = next(index for index, one in enumerate(args) if one.split("=")[0] == "--torchrun")
    rest = args[:at] + args[at + (1 if "=" in args[at] else 2) :]
    names = ctx.command_path.split()[1:]
    argv = launched(torchrun_launcher(torchrun), ["-m", "ddo_plugin", *names, *rest])
    become_process(Command([sys.executable, *interpreter_options(), *argv]))
