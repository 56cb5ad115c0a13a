"""Errors for people: one line that says what is wrong, why it matters and what to do."""

from __future__ import annotations

import os
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

    def format_message(self) -> str:
        """Return the message without control characters."""
        return printable(self.message)

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error; on later ranks after a moment, in which torchrun usually ends them."""
        if local_rank() != 0:
            time.sleep(FIRST_S)
        super().show(file)


def printable(text: str) -> str:
    """Return text without control characters: the names in a file can hold codes that steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


class CollapseError(click.ClickException):
    """The likelihood of the real data fell below the allowed bound, so further training would only do harm."""

    exit_code = COLLAPSE_STATUS


@contextmanager
def system_errors_in_one_line() -> Iterator[None]:
    """Report in one line what the system refuses, such as a name that is too long, and text that is not UTF-8."""
    try:
        yield
    except BrokenPipeError:  # the reader of the output has ended, as in `| head`
        raise
    except OSError as error:
        if error.strerror is None:  # not from the system
            raise
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        raise UserError(f"{place}{error.strerror}; check the path, its permissions and the free disk space") from None
    except UnicodeError as error:
        raise UserError(f"a name or a file is not valid UTF-8 ({error}); rename or convert it") from None


@contextmanager
def in_one_line() -> Iterator[None]:
    """End the process as a click command would, for scripts that are no click commands."""
    try:
        with system_errors_in_one_line():
            yield
    except click.ClickException as error:
        if click.get_current_context(silent=True) is not None:
            raise
        # click would print the usage of another command than this script
        shown = UserError(error.format_message()) if isinstance(error, click.UsageError) else error
        shown.show(sys.stderr)
        raise SystemExit(error.exit_code) from None
