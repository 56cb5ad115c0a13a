"""Fork an interpreter that has already imported torch, once for each command on stdin.

A command is a line of JSON: the interpreter's arguments, its current folder, its environment, and the files that it
prints to. The answer is also a line of JSON: the exit status, or the command that the fork passed to `os.execve`.
Only third-party packages are imported in advance; each fork imports ddo_plugin and the upstream's code itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import io
import json
import os
import runpy
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn

# The first optimizer of a process imports torch._dynamo, which takes as long as torch itself.
PRELOADED = ("torch", "torch._dynamo", "torch.distributed.run", "numpy", "scipy.stats", "scipy.linalg", "PIL.Image")
PRELOADED += ("requests", "psutil", "safetensors.torch", "click", "pluggy", "tqdm")


def preload() -> None:
    """Import what most commands need."""
    for name in PRELOADED:
        with contextlib.suppress(Exception):  # a command that needs the package will say what is wrong
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the forks share these objects


def become(order: Mapping[str, Any]) -> None:
    """Set up this process as Python would have started it for the command."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    append = os.O_WRONLY | os.O_APPEND
    for number, path, mode in (
        (0, os.devnull, os.O_RDONLY),
        (1, order["stdout"], append),
        (2, order["stderr"], append),
    ):
        opened = os.open(path, mode)
        os.dup2(opened, number)
        os.close(opened)
    unbuffered = bool(order["env"].get("PYTHONUNBUFFERED"))
    out = os.fdopen(1, "wb", 0 if unbuffered else -1)
    sys.stdin, sys.stderr = os.fdopen(0), os.fdopen(2, "w", buffering=1)
    sys.stdout = io.TextIOWrapper(out, write_through=unbuffered)
    sys.orig_argv = [sys.executable, *order["arguments"]]
    sys.dont_write_bytecode = bool(order["env"].get("PYTHONDONTWRITEBYTECODE"))
    sys.path[:] = [*filter(None, order["env"].get("PYTHONPATH", "").split(os.pathsep)), *order["path"]]
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    sys.modules.pop("sitecustomize", None)
    if importlib.util.find_spec("sitecustomize"):
        importlib.import_module("sitecustomize")

    def execve(path: str, argv: list[str], env: Mapping[str, str]) -> NoReturn:
        Path(order["next"]).write_text(json.dumps({"argv": [path, *argv[1:]], "env": dict(env)}))
        os._exit(0)

    os.execve = execve


def run(arguments: list[str]) -> None:
    """Run the command as `python ARGUMENTS` does."""
    folder = {"-m": str(Path.cwd()), "-c": ""}.get(arguments[0], str(Path(arguments[0]).resolve().parent))
    if not os.environ.get("PYTHONSAFEPATH"):
        sys.path.insert(0, folder)
    if arguments[0] == "-m":
        sys.argv = ["-m", *arguments[2:]]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = ModuleType("__main__")
    if arguments[0] == "-c":
        sys.argv, code = ["-c", *arguments[2:]], compile(arguments[1], "<string>", "exec", dont_inherit=True)
    else:
        sys.argv, main.__file__ = list(arguments), str(Path(arguments[0]).absolute())
        code = compile(Path(arguments[0]).read_bytes(), main.__file__, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def without_our_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the command's own code on."""
    while trace and trace.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>", runpy.__file__):
        trace = trace.tb_next
    return trace


def status_of(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    try:
        run(arguments)
    except SystemExit as exit_:
        if exit_.code is None or isinstance(exit_.code, int):
            return exit_.code or 0
        print(exit_.code, file=sys.stderr)
        return 1
    except BaseException as error:
        error.__traceback__ = without_our_frames(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def in_fork(order: Mapping[str, Any]) -> NoReturn:
    """Run the command in this process, then end as an interpreter does."""
    status = 1
    try:
        become(order)
        status = status_of(order["arguments"])
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status & 0xFF)


def serve() -> None:
    """Run one command after the other until stdin ends."""
    path = [entry for entry in sys.path[1:] if entry not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    preload()
    orders, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in orders:
        order = {**json.loads(line), "path": path}
        child = os.fork()
        if not child:
            in_fork(order)
        _, code = os.waitpid(child, 0)
        following = Path(order["next"])
        answer = {"status": os.waitstatus_to_exitcode(code)}
        if following.exists():
            answer = json.loads(following.read_text())
            following.unlink()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
