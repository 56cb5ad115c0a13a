"""Errors for people: one line that says what is wrong, why it matters and what to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from ddo_plugin.base.ranks import local_rank

COLLAPSE_STATUS = 3  # exit status of a finetuning run that stopped because it collapsed
FIRST_S = 2.0  # time for a machine's first rank to print its error, and for torchrun to end the others


class UserError(click.ClickException):
    """Something that the user passed cannot be used: one line, exit status 2, no traceback.

    Most errors occur on every rank. The first rank prints; the others print only if they still run a little later.
    """

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error; on later ranks after a moment, in which torchrun usually ends them."""
        if local_rank() != 0:
            time.sleep(FIRST_S)
        super().show(file)


class CollapseError(click.ClickException):
    """The likelihood of the real data fell below the allowed bound, so further training would only do harm."""

    exit_code = COLLAPSE_STATUS


@contextmanager
def in_one_line() -> Iterator[None]:
    """End the process as a click command would, for scripts that are no click commands."""
    try:
        yield
    except click.ClickException as error:
        if click.get_current_context(silent=True) is not None:
            raise
        # click would print the usage of another command than this script
        shown = UserError(error.format_message()) if isinstance(error, click.UsageError) else error
        shown.show(sys.stderr)
        raise SystemExit(error.exit_code) from None
