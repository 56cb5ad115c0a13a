"""Errors that a person reads: one line that says what is wrong, why it matters and how to mend it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

COLLAPSE_STATUS = 3  # exit status of a finetuning run that stopped because it collapsed


class UserError(click.ClickException):
    """Something the user gave us cannot be used: one line, exit status 2, no traceback."""

    exit_code = 2


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
        sys.stderr.write(f"Error: {error.format_message()}\n")
        raise SystemExit(error.exit_code) from None
