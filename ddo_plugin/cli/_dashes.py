"""Commands that pass the arguments after `--` to another program."""

from __future__ import annotations

import click

ARGUMENTS = "arguments"


class SplitAtDashes(click.Command):
    """A command that keeps the arguments after the first `--` in `ctx.meta["arguments"]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[ARGUMENTS] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])
