"""Runs commands on this machine: at most `slots` at a time, each with its log and its progress file."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Protocol

from ddo_plugin.base.commands import Command
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import size_of
from ddo_plugin.base.progress import PARENT_VARIABLE, PROGRESS_VARIABLE
from ddo_plugin.jobs.slots import Slot

TAIL_LINES = 60  # torchrun writes half of that after its ranks have ended
GRACE_S = 5.0
_NOTHING: AbstractContextManager[Any] = contextlib.nullcontext()
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has only one way


class StepFailedError(Exception):
    """A command ended with a status other than 0. What its log says before byte `begun`, earlier attempts said."""

    def __init__(self, command: Command, status: int, log: Path, name: str = "", begun: int = 0):
        self.command, self.status, self.log, self.name = command, status, log, name
        told = log.read_bytes()[begun:].decode(errors="replace") if log.exists() else ""
        self.tail = "\n".join(told.splitlines()[-TAIL_LINES:])
        super().__init__(f"exit status {status}: {command}\nlog: {log}\n{self.tail}")

    @property
    def words(self) -> str:
        """The command's own: its last line that names an error, after which torchrun speaks; else the last one."""
        lines = [line.strip() for line in self.tail.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("Error: ")]
        return (errors or lines or ["it said nothing"])[-1]

    def line(self) -> str:
        """The failure in one line."""
        return f"{self.name or self.command}: exit status {self.status}: {self.words}; log: {self.log}"


class StoppedError(Exception):
    """The executor was asked to stop."""


class Executor(Protocol):
    """Runs commands somewhere, each with its log and its progress file."""

    @property
    def stopping(self) -> threading.Event:
        """Set once `stop` was called."""

    def run(
        self,
        command: Command,
        log: Path,
        progress: Path,
        name: str = "",
        during: AbstractContextManager[Any] = ...,
    ) -> None:
        """Wait for a slot, then run the command in it, `during` around it."""

    def stop(self) -> None:
        """End every command, and start no other."""

    def cancel_leftovers(self) -> None:
        """End what an earlier run in the same folder, which was killed, left running elsewhere."""


class LocalExecutor:
    """A pool of slots. `run` blocks its thread until the command has ended; `stop` ends all of them."""

    def __init__(self, slots: int | Sequence[Slot] = 1, threads_per_command: int | None = None):
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in [Slot()] * slots if isinstance(slots, int) else slots:
            self._free.put(slot)
        self._threads = threads_per_command
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    def run(
        self,
        command: Command,
        log: Path,
        progress: Path,
        name: str = "",
        during: AbstractContextManager[Any] = _NOTHING,
    ) -> None:
        """Wait for a slot, then run the command in it, `during` around it."""
        slot = self._free.get()
        begun = size_of(log)
        try:
            if self.stopping.is_set():
                raise StoppedError
            with during:
                status = self._run_in(slot, command, log, progress)
        finally:
            self._free.put(slot)
        if self.stopping.is_set():
            raise StoppedError
        if status != 0:
            raise StepFailedError(command, status, log, name, begun)

    def stop(self) -> None:
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
        """Nothing: what runs on this machine is found by its environment, whoever started it."""

    def _run_in(self, slot: Slot, command: Command, log: Path, progress: Path) -> int:
        process = self._start(slot, command, log, progress)
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
            progress.unlink(missing_ok=True)  # of an earlier attempt that was killed
            with slot.pinned():
                process = _popen(command, log, {**env, **command.env})
            self._running.add(process)
        return process


@contextlib.contextmanager
def appended(log: Path) -> Iterator[IO[bytes]]:
    """The log of a further attempt: on a line of its own, for a kill may have cut the last one short."""
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
                start_new_session=True,  # so that `stop` reaches what the command itself has started
            )
        except OSError as error:
            raise UserError(f"cannot start `{command}`: {error}") from None


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.name == "posix":
            os.killpg(process.pid, number)
        else:
            process.terminate()
