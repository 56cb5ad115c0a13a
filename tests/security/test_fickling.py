"""The files that try to run code, judged by fickling, a scanner of pickles that was written by others."""

from __future__ import annotations

import ast
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ddo_plugin.snapshots.pickles.file_kind import FileKind, kind_of
from ddo_plugin.snapshots.pickles.unpickler import survey
from tests.security.attacks import code_attacks
from tests.security.pieces import network, pickled

fickle = pytest.importorskip("fickling.fickle", reason="needs fickling: pip install fickling")
analysis = pytest.importorskip("fickling.analysis")


def read_by_fickling(content: bytes) -> list[Any]:
    """Return the pickles in a file as fickling reads them, or nothing if it cannot: it lacks some opcodes."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = next((archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")), b"")
    try:
        pickles = list(fickle.StackedPickle.load(content))
        for pickle in pickles:
            analysis.check_safety(pickle)
    except Exception:
        return []
    return pickles


def is_flagged(pickles: list[Any]) -> bool:
    return any(analysis.check_safety(pickle).severity > analysis.Severity.LIKELY_SAFE for pickle in pickles)


def names(pickles: list[Any]) -> set[str]:
    """Return what the pickles import, according to fickling."""
    found = (node for pickle in pickles for node in ast.walk(pickle.ast) if isinstance(node, ast.ImportFrom))
    return {f"{node.module}.{alias.name}" for node in found for alias in node.names}


@pytest.mark.thorough
def test_fickling_flags_what_tries_to_run_code() -> None:
    files = {name: pickles for name, content in code_attacks().items() if (pickles := read_by_fickling(content))}
    assert len(files) > 200
    assert [name for name, pickles in files.items() if not is_flagged(pickles)] == []


@pytest.mark.thorough
def test_inspect_names_all_that_fickling_sees(tmp_path: Path) -> None:
    path, missed, compared = tmp_path / "file", {}, 0
    for name, content in code_attacks().items():
        path.write_bytes(content)
        if kind_of(path) is FileKind.PICKLE and (found := survey(path)).damage is None:
            imported = names(read_by_fickling(content))
            compared += bool(imported)
            missed |= {name: left} if (left := imported - found.globals.keys()) else {}
    assert missed == {}
    assert compared > 100


def test_fickling_flags_an_honest_network_too() -> None:
    """So a scanner does not replace the reader: it cannot tell honest networks from hostile ones."""
    assert is_flagged(read_by_fickling(pickled(network())))
