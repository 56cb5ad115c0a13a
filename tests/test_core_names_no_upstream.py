"""The core names no upstream in code: what it must know of one, the `Upstream` record declares.

Comments and docstrings may name upstreams as reasons. Strings, identifiers and file names may not, except for those
listed here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ddo_plugin

CORE = Path(ddo_plugin.__file__).parent
UPSTREAM = re.compile(r"(?<![a-z])(edm2?|var|nvlabs|dnnlib|torch_utils|training\.networks)(?![a-z])", re.IGNORECASE)
SPACING = "edm is the paper's name of a spacing of noise levels"
EXCEPTIONS = {
    "base/download.py": "the download cache is shared with dnnlib: its environment variable and its folder",
    "checkouts/compat/cpu.py": "the module whose statistics ranks share is looked up by its name, and absent elsewhere",
    "cli/eval.py": "the help says which checkouts measure with features of their own",
    "evaluation/real_statistics.py": "EDM2 is the name of a file format of statistics",
    "sampling/options.py": SPACING,
    "sampling/sampler.py": SPACING,
    "sampling/solvers/choices.py": SPACING,
    "sampling/solvers/noise_levels.py": SPACING,
    "snapshots/pickles/constructors.py": "the globals that network pickles in the persistence format refer to",
    "snapshots/pickles/network.py": "the module that `pickle.load` needs for the persistence format",
}


def code_of(tree: ast.Module) -> Iterator[str]:
    """Every string that is no docstring, and every identifier."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in bare:
            yield node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
        for field in ("name", "id", "attr", "arg", "asname", "module"):
            if isinstance(name := getattr(node, field, None), str):
                yield name


def named(file: Path) -> list[str]:
    texts = [file.relative_to(CORE).as_posix(), *code_of(ast.parse(file.read_text()))]
    return [text for text in texts if UPSTREAM.search(text)]


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("class EDMLoss: pass", []),
        ("x = 'edm'", ["edm"]),
        ("def run_edm2(): pass", ["run_edm2"]),
        ("CLASSES = {'P': 'training.networks'}", ["training.networks"]),
        ("import dnnlib", ["dnnlib"]),
        ("variance = environment = 'several vary'", []),
        ("'''EDM draws its seed on the GPU'''", []),
        ("raise ValueError(f'{x} is none of VAR')", [" is none of VAR"]),
    ],
)
def test_the_check_itself(code: str, names: list[str]) -> None:
    assert [text for text in code_of(ast.parse(code)) if UPSTREAM.search(text)] == names


def test_the_core_names_no_upstream() -> None:
    files = {file.relative_to(CORE).as_posix(): named(file) for file in CORE.rglob("*.py")}
    assert {file: names for file, names in files.items() if names and file not in EXCEPTIONS} == {}


def test_every_exception_is_one() -> None:
    assert [file for file in EXCEPTIONS if not named(CORE / file)] == []
