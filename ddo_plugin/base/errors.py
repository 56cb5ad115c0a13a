"""Errors that a person reads: one line that says what is wrong, why it matters and how to mend it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

COLLAPSE_STATUS = 3  # exit status of a finetuning run that stopped because it collapsed
FIRST_S = 2.0  # how long the first rank of a machine has to say what is wrong, and torchrun to end the others


class UserError(click.ClickException):
    """Something the user gave us cannot be used: one line, exit status 2, no traceback.

    Most errors are every rank's. The first one tells; another one does only if it is still there a little later.
    """

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(FIRST_S)
        super().show(file)


class CollapseError(click.ClickException):
    """The real data lost likelihood beyond the bound that was set: training further would only harm."""

    exit_code = COLLAPSE_STATUS


@contextmanager
def in_one_line() -> Iterator[None]:
    """Ends the process as a click command would; for what runs under a script that is none."""
    try:
        yield
    except click.ClickException as error:
        if click.get_current_context(silent=True) is not None:
            raise
        # click would tell of a usage that is not this script's
        told = UserError(error.format_message()) if isinstance(error, click.UsageError) else error
        told.show(sys.stderr)
        raise SystemExit(error.exit_code) from None
