"""Runs a checkout's scripts without changing the checkout: patched scripts as copies, the others in place.

The copies of patched files lie in a folder of the cache named after their content. Python finds that folder first,
because the script lies in it, and the checkout second, by `PYTHONPATH`. So tracebacks, spawned workers, torchrun and
debuggers see an ordinary script. The other scripts are started by `python -m ddo_plugin.checkouts.compat`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ddo_plugin.base.commands import Command
from ddo_plugin.base.environment import cache_folder
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_write
from ddo_plugin.checkouts.checkout import Checkout
from ddo_plugin.checkouts.patching.placing import State
from ddo_plugin.checkouts.patching.tree import PatchedFile

_STAND_IN = """from ddo_plugin.checkouts.stand_in import become
become(globals(), {code!r}, {place!r})
"""


def checkout_command(
    checkout: Checkout, script: str, arguments: Sequence[str], launcher: Sequence[str] = ()
) -> Command:
    """Return the command that runs `script`, patched if the patch changes it. `launcher` starts torchrun, if given."""
    script = _in_checkout(checkout.root, script)
    files = checkout.files()
    folders = [(checkout.root / script).parent]
    if script in [file.path for file in files]:
        copy = _patched(checkout.root, script, files)
        run, folders = [str(copy)], [copy.parent, *folders]  # as Python does by itself, except with -P
    else:
        run = ["-m", "ddo_plugin.checkouts.compat", str(checkout.root / script)]
    argv = [sys.executable, *interpreter_options(), *launched(launcher, [*run, *arguments])]
    return Command(argv, environment(*folders))


def launched(launcher: Sequence[str], program: Sequence[str]) -> list[str]:
    """Return the arguments that start a program (a script or `-m module`, and its arguments) by the launcher, if any.

    Without the dashes, torchrun would take an argument of the program, such as --num=6, as short for one of its own.
    """
    if not launcher:
        return list(program)
    module = program[:1] == ["-m"]
    return [*launcher, *program[:module], "--", *program[module:]]


def _in_checkout(root: Path, script: str) -> str:
    """Return the script's path as the patch spells it, so that no spelling runs a patched file unpatched."""
    path = root / script
    path = path.parent.resolve() / path.name
    if not path.is_relative_to(root):
        raise UserError(f"{script}: not a script of the checkout {root}; run it by plain python")
    if not path.is_file():
        raise UserError(f"{script}: no such file in {root}")
    return path.relative_to(root).as_posix()


def _patched(root: Path, script: str, files: Sequence[PatchedFile]) -> Path:
    for file in files:
        if file.inspection.state is State.CONFLICTING:
            raise UserError(f"{file.path} cannot be patched: {file.inspection.reason}")
    return write_copies(root, script, files) / script


def write_copies(root: Path, script: str, files: Sequence[PatchedFile]) -> Path:
    """Write the patched script, and stand-ins for the patched modules. Return their folder."""
    contents: dict[str, bytes] = {}
    patched = {file.path: file.inspection.with_lines or b"" for file in files}
    folder = cache_folder() / "run" / _key(root, script, patched)
    for path, data in patched.items():
        if path == script:
            contents[path] = data
        else:
            code = f".patched/{path}"
            contents[code] = data
            contents[path] = _stand_in(folder / code, root / path)
            contents |= {str(path): _stand_in(root / path, root / path) for path in _package_files(root, path)}
    for path, data in contents.items():
        copy = folder / path
        if not copy.is_file() or copy.read_bytes() != data:
            with atomic_write(copy) as file:  # ranks may do this at the same time, with the same bytes
                file.write(data)
    return folder


def environment(*folders: Path) -> dict[str, str]:
    """Return the variables of the script's process: its folders on the import path, no `__pycache__` left there."""
    for folder in folders:
        if os.pathsep in str(folder):
            raise UserError(f"{folder}: PYTHONPATH cannot hold a folder with {os.pathsep!r} in its name; rename it")
    path = os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE") or "1"}


def interpreter_options() -> list[str]:
    """Return the options that this interpreter was started with, such as -u and -W."""
    head = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    return head[:-2] if head[-2:-1] == ["-m"] else head[:-1]


def become_process(command: Command) -> None:
    """Replace this process by the command, which keeps its process id. Signals and exit status are the command's."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command.argv[0], list(command.argv), {**os.environ, **command.env})


def _stand_in(code: Path, place: Path) -> bytes:
    return _STAND_IN.format(code=str(code), place=str(place)).encode()


def _package_files(root: Path, path: str) -> list[PurePosixPath]:
    """Return the `__init__.py` of the packages around a module. Without stand-ins for these, Python would no longer
    find their other modules.
    """
    folders = PurePosixPath(path).parents
    return [folder / "__init__.py" for folder in folders if folder.name and (root / folder / "__init__.py").is_file()]


def _key(root: Path, script: str, patched: Mapping[str, bytes]) -> str:
    parts = [str(root), script, _STAND_IN, {path: hashlib.sha256(data).hexdigest() for path, data in patched.items()}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
