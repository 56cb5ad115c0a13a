"""Run `python ARGUMENTS` again and again, each time in a fork with another fault, and print a line of JSON for each.

stdin: {"world": folder, "work": folder, "arguments": [...], "faults": [...], "share": share of the faults, "seed": int,
"env": {...}}, a line for each command
Each fork works in a fresh copy of `world` at `work`. Afterwards the same command runs without a fault in what is left.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from tests import fork_server
from tests.faults.shim import Shim


class Driver:
    """The command, and the folder that it works in."""

    def __init__(self, order: dict[str, Any]):
        self.world, self.work = Path(order["world"]), Path(order["work"])
        self.arguments, self.order = order["arguments"], order
        self.spoken = self.work.with_name("spoken")

    def fresh(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.world, self.work, symlinks=True)

    def run(self, fault: str = "", at: int = -1) -> dict[str, Any]:
        """Run the command in a fork; return how it ended, what it said, and the files that are there then."""
        report = self.work.with_name("report")
        report.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            self._in_fork(Shim(str(self.work), fault, at), report)
        _, code = os.waitpid(child, 0)
        ended = {"status": os.waitstatus_to_exitcode(code), "said": self.spoken.read_text(), "files": self.files()}
        return ended | (json.loads(report.read_text()) if report.exists() else {"seen": [], "modules": []})

    def _in_fork(self, shim: Shim, report: Path) -> NoReturn:
        status = 1
        try:
            os.chdir(self.work)
            os.environ.update(self.order["env"])
            sys.path[1:1] = filter(None, self.order["env"].get("PYTHONPATH", "").split(os.pathsep))
            opened = os.open(self.spoken, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            for number in (1, 2):
                os.dup2(opened, number)
            sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            sys.orig_argv = [sys.executable, *self.arguments]
            shim.install()
            status = fork_server.status_of(self.arguments)
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            report.write_text(json.dumps({"seen": shim.seen, "modules": list(sys.modules)}))
        finally:
            os._exit(status & 0xFF)

    def files(self) -> dict[str, str]:
        """Return the digest of each file, by its path in the folder; that of a folder is empty."""
        found = {}
        for path in sorted(self.work.rglob("*")):
            digest = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
            found[path.relative_to(self.work).as_posix()] = digest
        return found

    def drive(self) -> None:
        for name in self.run_clean()["modules"]:
            if not name.startswith("ddo_"):  # each command loads its own plugins
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        gc.collect()
        gc.freeze()
        clean = self.run_clean()
        answer({"clean": {name: clean[name] for name in ("status", "said", "files", "seen")}})
        injections = [(fault, at) for at in range(len(clean["seen"])) for fault in self.order["faults"]]
        few = min(max(1, round(len(injections) * self.order["share"])), len(injections))
        for fault, at in random.Random(self.order["seed"]).sample(injections, few):
            self.fresh()
            failed = self.run(fault, at)
            seen = failed["seen"] or clean["seen"]  # threads can change the order; a killed process reports nothing
            if at >= len(seen):
                continue  # this time, there were fewer operations
            answer(
                {
                    "fault": fault,
                    "at": at,
                    "operation": seen[at],
                    "failed": {name: failed[name] for name in ("status", "said", "files")},
                    "broken": broken(self.work),
                    "again": {name: value for name, value in self.run().items() if name in ("status", "said", "files")},
                }
            )

    def run_clean(self) -> dict[str, Any]:
        self.fresh()
        return self.run()


def broken(folder: Path) -> list[str]:
    """Return the files whose names are not hidden but that are incomplete, as far as their format shows it."""
    named = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return [
        str(name)
        for name, path in named.items()
        if not any(part.startswith(".") for part in name.parts) and _is_broken(path)
    ]


def _is_broken(path: Path) -> bool:
    import zipfile

    import numpy as np
    from safetensors import safe_open

    try:
        if path.suffix in (".zip", ".npz", ".pt", ".pth"):
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is not None
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".npy":
            np.load(path, mmap_mode="r")
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                pass
        elif path.suffix == ".png":
            return not path.read_bytes().endswith(b"IEND\xaeB`\x82")
        elif path.suffix == ".html":
            return "</html>" not in path.read_text()
    except Exception:
        return True
    return False


def answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    fork_server.preload()
    for line in sys.stdin:
        Driver(json.loads(line)).drive()
        answer({"end": True})
