"""What the commands that open networks share: finding the upstream, the options of its sampler, opening a network."""

from __future__ import annotations

import contextlib
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

META = "ddo_plugin.generating"  # key of the upstream and the arguments in a command's context


class GeneratingCommand(click.Command):
    """A command that adds the sampler options of an upstream, which the checkout or --upstream names."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not any(option.name == "checkout" for option in self.params):
            self.params += network_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        values = _peek([option for option in self.params if option.name in ("checkout", "upstream")], args)
        upstream, ready = _upstream(values["checkout"], values["upstream"])
        ctx.meta[META] = (upstream, list(args))
        if not ready and not any(name in args for name in ctx.help_option_names):
            raise _without_checkout(upstream)
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
            formatter.write_text(
                "To list the options of an upstream's sampler, run this in its checkout or add --upstream."
            )


def upstream_named(checkout: Path | None, name: str | None) -> str:
    """Return the name of the upstream whose networks a command reads, and make its checkout importable."""
    upstream, ready = _upstream(checkout, name)
    if upstream is None or not ready:
        raise _without_checkout(upstream)
    return upstream


def open_generator(network: str, options: Mapping[str, Any]) -> Generator:
    """Load the network that the user passed, ready for sampling."""
    upstream, _ = click.get_current_context().meta[META]
    generator = plugins.manager().hook.ddo_generator(upstream=upstream, source=network, options=options)
    if generator is None:
        raise UserError(
            f"--network={network}: no plugin can sample networks of {upstream}; `ddo plugins` lists the plugins"
        )
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
            "DDO_DEVICE or DDO_COMPAT_OFF asks for a GPU, but torch finds none; unset it, or set DDO_DEVICE=cpu"
        )
    with ranks(cuda) as group:
        yield group


def _peek(wanted: list[click.Parameter], args: list[str]) -> dict[str, Any]:
    """Return the values of these options and ignore all other arguments."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    peek = click.Command("peek", params=wanted, context_settings=settings, add_help_option=False)
    with peek.make_context("peek", list(args), resilient_parsing=True) as context:
        return context.params


def _without_checkout(upstream: str | None) -> UserError:
    if upstream is not None:
        why, add = f"--upstream={upstream} needs a checkout", "--checkout=PATH"
    else:
        why, add = (
            "cannot determine the network's upstream",
            "--checkout=PATH, or --upstream=NAME if it has no checkout",
        )
    return UserError(f"{why}: run this command in the upstream's checkout, or add {add}")


def _upstream(checkout: Path | None, name: str | None) -> tuple[str | None, bool]:
    """Return the upstream's name, or None if it is unknown, and whether its networks can be loaded."""
    from ddo_plugin.checkouts.checkout import make_importable, open_checkout

    if checkout is not None:
        opened = open_checkout(checkout)
        make_importable(opened.root)
        if name not in (None, opened.upstream.name):
            raise UserError(
                f"--upstream={name}: --checkout={checkout} is a checkout of {opened.upstream.title}; drop one option"
            )
        return opened.upstream.name, True
    for folder in dict.fromkeys([Path(), *map(Path, sys.path)]):
        try:
            opened = open_checkout(folder)
        except UserError:
            continue
        if name in (None, opened.upstream.name):
            make_importable(opened.root)
            return opened.upstream.name, True
    known = plugins.upstreams_by_name()
    if name is None:
        return None, False
    if name not in known:
        raise UserError(f"--upstream={name}: no plugin has this upstream; choose from {', '.join(sorted(known))}")
    return name, not known[name].landmarks  # an upstream without landmarks, such as the demo, has no checkout


def _become_torchrun(ctx: click.Context, torchrun: str) -> None:
    """Replace this process by torchrun with the same command."""
    from ddo_plugin.base.commands import Command, torchrun_launcher
    from ddo_plugin.checkouts.run_script import become_process, interpreter_options, launched

    _, args = ctx.meta[META]
    at = next(index for index, argument in enumerate(args) if argument.split("=")[0] == "--torchrun")
    rest = args[:at] + args[at + (1 if "=" in args[at] else 2) :]
    names = ctx.command_path.split()[1:]
    argv = launched(torchrun_launcher(torchrun), ["-m", "ddo_plugin", *names, *rest])
    become_process(Command([sys.executable, *interpreter_options(), *argv]))
