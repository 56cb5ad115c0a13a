"""Ctrl-C and SIGTERM: the run ends its commands, then says in one line how to resume."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedBySignal(KeyboardInterrupt):
    """The user asked the run to end."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextmanager
def resumable() -> Iterator[None]:
    """Exit with status 130 after Ctrl-C and 143 after SIGTERM, as shells do. Ignore further signals meanwhile."""
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    except InterruptedBySignal as interrupt:
        name = "Ctrl-C" if interrupt.number == signal.SIGINT else "SIGTERM"
        click.echo(f"\nInterrupted by {name}. Run the same command again to resume.", err=True)
        sys.exit(128 + interrupt.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: Any) -> None:
    for further in SIGNALS:
        signal.signal(further, signal.SIG_IGN)  # the commands are already being ended
    raise InterruptedBySignal(number)
