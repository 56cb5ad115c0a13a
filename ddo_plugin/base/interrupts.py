"""Ctrl-C and SIGTERM: one line, exit status 130 or 143 as in a shell, and no traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import click

from ddo_plugin.base.ranks import local_rank

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOADING_POLL_S = 0.05


class InterruptedBySignal(KeyboardInterrupt):
    """The user asked the process to end."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(signal.Signals(number).name)


def resumable() -> AbstractContextManager[None]:
    """As `interruptible`, for commands that continue where they were interrupted."""
    return interruptible(" Run the same command again to resume.")


@contextmanager
def interruptible(advice: str = "") -> Iterator[None]:
    """Exit with status 130 after Ctrl-C and 143 after SIGTERM, as shells do. Ignore further signals meanwhile."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    except InterruptedBySignal as interrupt:
        if local_rank() == 0:
            click.echo(f"\n{_line(interrupt.number)}{advice}", err=True)
        sys.exit(128 + interrupt.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_process_when_interrupted() -> None:
    """From now on, end this process as `interruptible` does. For scripts of others; their `finally` blocks run."""
    process = os.getpid()

    def end(number: int, _frame: Any) -> None:
        if os.getpid() != process:  # a worker that the script forked: end it quietly
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        _ignore_further()
        if local_rank() == 0:
            os.write(2, f"\n{_line(number)}\n".encode())  # print could be interrupted by itself
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, end)


def _line(number: int) -> str:
    return f"Interrupted by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}."


def _interrupt(number: int, _frame: Any) -> None:
    if _torch_is_loading():
        again = threading.Timer(_LOADING_POLL_S, os.kill, (os.getpid(), number))
        again.daemon = True  # the process may end first
        again.start()
        return
    _ignore_further()  # what the process started is already being ended
    raise InterruptedBySignal(number)


def _torch_is_loading() -> bool:
    """Return whether torch is being imported. Its C++ code aborts the process if a signal handler raises meanwhile."""
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _ignore_further() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
