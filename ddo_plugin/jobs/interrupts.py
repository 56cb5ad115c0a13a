"""Ctrl-C and SIGTERM: children end first, then the run says in one line that it can go on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedBySignal(KeyboardInterrupt):  # as KeyboardInterrupt itself
    def __init__(self, number: int):
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextmanager
def resumable() -> Iterator[None]:
    """Exit status 130 after Ctrl-C and 143 after SIGTERM, as a shell would report them; a second signal waits."""
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    except InterruptedBySignal as interrupt:
        name = "Ctrl-C" if interrupt.number == signal.SIGINT else "SIGTERM"
        click.echo(f"\nInterrupted by {name}. The same command goes on where it stopped.", err=True)
        sys.exit(128 + interrupt.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: Any) -> None:
    for further in SIGNALS:
        signal.signal(further, signal.SIG_IGN)  # the children are being ended already
    raise InterruptedBySignal(number)
