"""Start the driver for one command and judge what each fault left."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ddo_plugin.base.environment import core_count
from tests.faults.shim import FAULTS, KILL, SIGNALS

ROOT = Path(__file__).parents[2]
ENDS = {"SIGINT": (130, "Interrupted by Ctrl-C."), "SIGTERM": (143, "Interrupted by SIGTERM.")}
SERVER = "{server}"
REASONS = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}
TIMED = re.compile(  # files whose bytes differ from run to run
    r"\.(log|lock|zip|npz|progress)$|(^|/)lock$|(journal\.jsonl|report\.html|training-state\.pt|ddo-stats\.jsonl)$"
)


@dataclass(frozen=True)
class Case:
    """A command in a folder. `exists` is said by a command that refuses to replace what it finished before a kill.

    In its arguments, {server} is the address of the folder that it finds, as files on a server.
    """

    arguments: Sequence[str]
    exists: str = ""
    changes: Sequence[str] = ()  # files that the command changes, and may leave in their old or their new state
    optional: Sequence[str] = ()  # files whose loss costs no result, so that the command may go on without them
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """What all faults of a command came to."""

    operations: int
    injected: int
    problems: list[str]


def inject(case: Case, world: Path, work: Path, *, share: float = 1.0, faults: Sequence[str] = FAULTS) -> Outcome:
    """Run the command with a share of all faults, each in a copy of `world`."""
    arguments = [
        server(world) + text.removeprefix(SERVER) if text.startswith(SERVER) else text for text in case.arguments
    ]
    order = {"world": str(world), "work": str(work / "work"), "arguments": arguments, "faults": list(faults)}
    order["env"] = {name: value.format(beside=world.parent) for name, value in case.env.items()}
    first, *rest = _drive({**order, "share": share, "seed": 0})
    clean = first["clean"]
    assert clean["status"] == 0, clean["said"]
    problems = [f"{told(fault)}: {problem}" for fault in rest for problem in problems_of(case, clean, fault)]
    return Outcome(len(clean["seen"]), len(rest), problems)


def inject_each(
    cases: Sequence[tuple[str, Case, Path]], work: Path, *, share: float, faults: Sequence[str]
) -> Iterator[Outcome]:
    """As `inject` for each name, command and world, on all cores of the machine."""

    def run(number: int) -> Outcome:
        name, case, world = cases[number]
        own = work / str(number)
        own.mkdir()
        outcome = inject(case, world, own, share=share, faults=faults)
        return replace(outcome, problems=[f"{name}: {problem}" for problem in outcome.problems])

    with ThreadPoolExecutor(core_count()) as pool:
        yield from pool.map(run, range(len(cases)))


def _drive(order: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the answers of the driver, a process that all tests of a thread share."""
    driver = _driver(threading.get_ident())
    print(json.dumps(order), file=driver.stdin, flush=True)
    answers: list[dict[str, Any]] = []
    while "end" not in (answer := json.loads(driver.stdout.readline())):
        answers.append(answer)
    return answers


@functools.cache
def _driver(_thread: int) -> Any:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    argv, pipe = [sys.executable, "-m", "tests.faults.driver"], subprocess.PIPE
    process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, cwd=ROOT, env=env, text=True)
    atexit.register(process.communicate)  # closes its stdin, so that it ends
    return process


@functools.cache
def server(folder: Path) -> str:
    """Serve the files of a folder until this process ends, and return the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{listening.server_address[1]}"


def told(fault: Mapping[str, Any]) -> str:
    kind, path = fault["operation"]
    return f"{fault['fault']} at operation {fault['at']} ({kind} of {path})"


def problems_of(case: Case, clean: Mapping[str, Any], fault: Mapping[str, Any]) -> Iterator[str]:
    failed, again = fault["failed"], fault["again"]
    went_on = failed["status"] == 0 and _visible(failed) == _visible(clean)
    if fault["fault"] == KILL:
        if failed["status"] != -9:
            yield f"was not killed: {failed['status']} {failed['said']}"
    elif fault["fault"] in SIGNALS:
        yield from _problems_of_end(failed, clean, *ENDS[fault["fault"]])
    elif not went_on or not _is_optional(case, fault):
        yield from _problems_of_message(failed, fault)
    if fault["broken"]:
        yield f"half-written: {fault['broken']}"
    if again["status"] != 0:
        if not (case.exists and case.exists in again["said"] and _visible(failed) == _visible(clean)):
            yield f"fails afterwards, status {again['status']}: {again['said'][-600:]}"
    elif _visible(again) != _visible(clean):
        yield f"afterwards other files: {_difference(_visible(again), _visible(clean))}"
    left = _hidden(again) - _hidden(clean)
    if left:
        yield f"left for ever: {sorted(left)}"


def _problems_of_message(failed: Mapping[str, Any], fault: Mapping[str, Any]) -> Iterator[str]:
    said = failed["said"]
    errors = [line for line in _said(failed) if line.startswith("Error: ")]
    if failed["status"] != 2 or "Traceback" in said or "Exception ignored" in said or len(errors) != 1:
        yield f"status {failed['status']}: {said[-1500:]}"
        return
    if REASONS[fault["fault"]] not in errors[0]:
        yield f"no reason: {errors[0]}"
    names = [part.strip(".").split(".")[0] for part in fault["operation"][1].split("/work/", 1)[-1].split("/")]
    if not any(name in errors[0] for name in names):
        yield f"no path: {errors[0]}"


def _problems_of_end(ended: Mapping[str, Any], clean: Mapping[str, Any], status: int, line: str) -> Iterator[str]:
    if ended["status"] == 0 and _visible(ended) == _visible(clean):  # all was done when the signal was handled
        return
    lines = [said for said in _said(ended) if said not in _said(clean) and "|" not in said]  # without progress bars
    if ended["status"] != status or len(lines) != 1 or not lines[0].startswith(line):
        yield f"status {ended['status']}: {ended['said'][-1500:]}"


def _is_optional(case: Case, fault: Mapping[str, Any]) -> bool:
    kind, path = fault["operation"]  # a folder that exists already needs no mkdir
    return kind == "mkdir" or any(part in path for part in case.optional)


def _said(ended: Mapping[str, Any]) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", ended["said"]) if line.strip()]


def _visible(ended: Mapping[str, Any]) -> dict[str, str]:
    files = {name: digest for name, digest in ended["files"].items() if not _is_hidden(name)}
    return {name: "" if TIMED.search(name) else digest for name, digest in files.items()}


def _hidden(ended: Mapping[str, Any]) -> set[str]:
    return {name for name in ended["files"] if _is_hidden(name) or name.endswith((".tmp", ".part"))}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _difference(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
