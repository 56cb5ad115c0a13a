"""Everything that is written goes through `ddo_plugin/base/files.py`, so that it is complete or absent.

A write counts as one through files.py if it is in a block of `with atomic_write(...)` or of another of its functions.
The other places are listed here, each with the reason why it is right there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITHIN = ("atomic_write", "atomic_folder", "writing")
CALLS = ("write_text", "write_bytes", "mkdir", "makedirs", "touch", "hardlink_to", "symlink_to")
CALLS += ("save", "savez", "savez_compressed", "save_file", "truncate")
RENAMES = ("rename", "replace")
MOVES = (*RENAMES, "copy", "copy2", "copyfile", "copytree", "move", "link", "symlink")
OPENS = ("open", "fdopen", "open_memmap")

GROWS = "the file grows line by line, so an incomplete last line is removed by the next run"
FOLDER = "creates a folder, whose files are written by other functions"
MEMORY = "writes to memory"
HIDDEN = "fills a hidden folder; files.py renames it, or what is in it, when it is complete"
OTHER = "writes nothing: a function of the same name"
ALLOWED = {  # file:function -> why it may write by itself
    "ddo_plugin/base/download.py:_cached": FOLDER,
    "ddo_plugin/base/download.py:_fill": "renames a hidden part, which is kept after a fault to be resumed",
    "ddo_plugin/base/image_files.py:png": MEMORY,
    "ddo_plugin/checkouts/compat/weights_only.py:_needed": MEMORY,
    "ddo_plugin/checkouts/patching/transaction.py:_finish": "renames several files, which a journal describes",
    "ddo_plugin/checkouts/patching/transaction.py:_locked": FOLDER,
    "ddo_plugin/cli/_generating.py:format_epilog": OTHER,
    "ddo_plugin/evaluation/metrics/inception.py:_network": MEMORY,
    "ddo_plugin/finetuning/statistics.py:_forget_later_steps": FOLDER,
    "ddo_plugin/jobs/executor.py:_start": FOLDER,
    "ddo_plugin/jobs/executor.py:appended": GROWS,
    "ddo_plugin/jobs/folder_lock.py:hold": FOLDER,
    "ddo_plugin/jobs/journal.py:__init__": FOLDER,
    "ddo_plugin/jobs/journal.py:_drop_unfinished_line": GROWS,
    "ddo_plugin/jobs/slurm.py:run": FOLDER,
    "ddo_plugin/sampling/image_writer.py:add": "writes to an archive that files.py has opened",
    "ddo_plugin/sampling/image_writer.py:finish": "writes to an archive that files.py has opened",
    "ddo_plugin/sampling/refsets/image_archive.py:_fill": HIDDEN,
    "ddo_plugin/sampling/refsets/partial.py:begin": HIDDEN,
    "ddo_plugin/sampling/refsets/partial.py:_create_arrays": HIDDEN,
    "ddo_plugin/sampling/refsets/partial.py:__init__": HIDDEN,
    "ddo_plugin/sampling/refsets/partial.py:_open_array": HIDDEN,
    "ddo_plugin/sampling/refsets/partial.py:_reserve": HIDDEN,
    "ddo_plugin/selfplay/repair.py:discard_damaged": "renames a damaged folder to a hidden name",
    "ddo_plugin/snapshots/training_state.py:set_state_aside": "renames a damaged file",
    "integrations/demo/families.py:_bytes": MEMORY,
    "integrations/demo/families.py:merge": HIDDEN,
    "integrations/demo/train.py:training_loop": FOLDER,
    "integrations/nvlabs/evaluation.py:empty_folder": FOLDER,
    "integrations/nvlabs/merging.py:merge": HIDDEN,
    "integrations/var/merging.py:merge": HIDDEN,
}


def test_every_write_goes_through_one_module() -> None:
    found = {place for folder in ("ddo_plugin", "integrations") for place in writes(ROOT / folder)}
    assert sorted(found - set(ALLOWED)) == [], "write by a function of files.py, or say in ALLOWED why not"
    assert sorted(set(ALLOWED) - found) == [], "no longer there"


@pytest.mark.parametrize(
    "source",
    [
        "open(path, 'w')",
        "path.open(mode='ab')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "np.save(path, array)",
        "path.replace(other)",
        "shutil.copy(path, other)",
        "with open(path, 'xb') as file: pass",
        "with reading(path): path.touch()",
    ],
)
def test_a_write_is_recognised(source: str) -> None:
    assert list(direct(ast.parse(f"def here():\n {source}"), "")) == ["here"]


@pytest.mark.parametrize(
    "source",
    [
        "open(path)",
        "path.open('rb')",
        "text.replace('a', 'b')",
        "with atomic_write(path) as file: np.save(file, array)",
        "with writing(path), path.open('ab') as file: pass",
    ],
)
def test_nothing_else_is(source: str) -> None:
    assert not list(direct(ast.parse(source), ""))


def writes(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name == "ddo_plugin/base/files.py":
            continue
        for function in direct(ast.parse(path.read_text(encoding="utf-8")), ""):
            yield f"{name}:{function}"


def direct(node: ast.AST, function: str) -> Iterator[str]:
    """Yield the name of the function around each write that is in no block of files.py."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.With, ast.AsyncWith)) and any(through(item.context_expr) for item in child.items):
            continue
        if isinstance(child, ast.Call) and is_write(child):
            yield function
        own = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
        yield from direct(child, own)


def through(expression: ast.expr) -> bool:
    return any(isinstance(call, ast.Call) and name_of(call) in WITHIN for call in ast.walk(expression))


def is_write(call: ast.Call) -> bool:
    name = name_of(call)
    if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in ("os", "shutil") and name in MOVES:
        return True
    if name in RENAMES:  # str.replace has two arguments, dataclasses.replace has keywords
        return isinstance(call.func, ast.Attribute) and len(call.args) == 1 and not call.keywords
    if name in OPENS:
        given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        text = [value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        flags = {part.attr for value in given for part in ast.walk(value) if isinstance(part, ast.Attribute)}
        return any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in text) or bool(
            flags & {"O_WRONLY", "O_RDWR", "O_CREAT"}
        )
    return name in CALLS


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
