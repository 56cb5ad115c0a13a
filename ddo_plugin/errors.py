"""Errors that a person reads: one line that says what is wrong, why it matters and how to mend it."""

from __future__ import annotations

import click

COLLAPSE_STATUS = 3  # exit status of a finetuning run that stopped because it collapsed


class UserError(click.ClickException):
    """Something the user gave us cannot be used: one line, exit status 2, no traceback."""

    exit_code = 2


class CollapseError(click.ClickException):
    """The real data lost likelihood beyond the bound that was set: training further would only harm."""

    exit_code = COLLAPSE_STATUS
