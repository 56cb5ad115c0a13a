"""Running commands on this machine: at most one in each slot, each with its log and its progress file."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import size_of
from ddo_plugin.base.progress import PARENT_VARIABLE, PROGRESS_VARIABLE
from ddo_plugin.jobs.slots import Slot

TAIL_LINES = 60  # torchrun writes about half as many lines after its ranks have ended
GRACE_S = 5.0
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has no SIGKILL


class StepFailedError(Exception):
    """A command ended with a status other than 0. Its output begins at byte `begun` of the log."""

    def __init__(self, command: Command, status: int, log: Path, name: str = "", begun: int = 0):
        self.command, self.status, self.log, self.name = command, status, log, name
        output = log.read_bytes()[begun:].decode(errors="replace") if log.exists() else ""
        self.tail = "\n".join(output.splitlines()[-TAIL_LINES:])
        super().__init__(f"exit status {status}: {command}\nlog: {log}\n{self.tail}")

    @property
    def words(self) -> str:
        """The last line that begins with "Error: ", because torchrun writes more after it; else the last line."""
        lines = [line.strip() for line in self.tail.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("Error: ")]
        return (errors or lines or ["no output"])[-1]

    def line(self) -> str:
        """Return the failure in one line."""
        return f"{self.name or self.command}: exit status {self.status}: {self.words}; log: {self.log}"


class StoppedError(Exception):
    """The executor was asked to stop."""


class Executor(Protocol):
    """Runs commands, each with its log and its progress file."""

    @property
    def stopping(self) -> threading.Event:
        """Set once `stop` was called."""

    def slot(self) -> AbstractContextManager[Slot]:
        """Wait for a free slot and hold it during the `with` block. Raise StoppedError after `stop`."""

    def run(self, slot: Slot, command: Command, log: Path, progress: Path, name: str = "") -> float:
        """Run the command in a slot that the caller holds, and return the seconds that it took."""

    def stop(self) -> None:
        """End all commands, and start no further command."""

    def cancel_leftovers(self) -> None:
        """End the commands that a killed run in the same folder left on other machines."""


class LocalExecutor:
    """A pool of slots on this machine."""

    def __init__(self, slots: int | Sequence[Slot] = 1, threads_per_command: int | None = None):
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in [Slot()] * slots if isinstance(slots, int) else slots:
            self._free.put(slot)
        self._threads = threads_per_command
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    @contextlib.contextmanager
    def slot(self) -> Iterator[Slot]:
        """Wait for a free slot and hold it during the `with` block. Raise StoppedError after `stop`."""
        slot = self._free.get()
        try:
            if self.stopping.is_set():
                raise StoppedError
            yield slot
        finally:
            self._free.put(slot)

    def run(self, slot: Slot, command: Command, log: Path, progress: Path, name: str = "") -> float:
        """Run the command in a slot that the caller holds, and return the seconds that it took."""
        begun, start = size_of(log), time.monotonic()
        status = self._status_of(self._start(slot, command, log, progress), progress)
        if self.stopping.is_set():
            raise StoppedError
        if status != 0:
            raise StepFailedError(command, status, log, name, begun)
        return time.monotonic() - start

    def stop(self) -> None:
        """End all commands, and start no further command."""
        with self._lock:
            self.stopping.set()
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)
        for process in running:
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                _signal(process, _KILL)

    def cancel_leftovers(self) -> None:
        """Do nothing: all commands run on this machine, where `leftovers` finds them."""

    def _status_of(self, process: subprocess.Popen[bytes], progress: Path) -> int:
        """Return the command's exit status once it has ended."""
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
            progress.unlink(missing_ok=True)

    def _start(self, slot: Slot, command: Command, log: Path, progress: Path) -> subprocess.Popen[bytes]:
        env = {**os.environ, PROGRESS_VARIABLE: str(progress), PARENT_VARIABLE: str(os.getpid()), **slot.env}
        if self._threads is not None:
            env |= {"OMP_NUM_THREADS": str(self._threads), "MKL_NUM_THREADS": str(self._threads)}
        with self._lock:
            if self.stopping.is_set():
                raise StoppedError
            log.parent.mkdir(parents=True, exist_ok=True)
            progress.unlink(missing_ok=True)  # an earlier attempt that was killed may have left it
            with slot.pinned():
                process = _popen(command, log, {**env, **command.env})
            self._running.add(process)
        return process


@contextlib.contextmanager
def appended(log: Path) -> Iterator[IO[bytes]]:
    """Open a log for another attempt, which begins on a line of its own even if a kill cut the last line short."""
    with log.open("a+b") as out:
        if out.tell():
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")
                out.flush()
        yield out


def _popen(command: Command, log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with appended(log) as out:
        try:
            return subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=command.cwd,
                env=env,
                start_new_session=True,  # so that `stop` also ends the processes that the command started
            )
        except OSError as error:
            raise UserError(f"cannot start `{command}`: {error}") from None


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.name == "posix":
            os.killpg(process.pid, number)
        else:
            process.terminate()
