"""Damaged and mutated files: each is read, or refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def mutate(count: int, folder: Path) -> dict[str, Any]:
    """Mutate and open files in a process of its own, and return what it found."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.security.mutations", str(count), "0"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.thorough)])
def test_a_mutated_file_is_read_or_refused_in_one_line(count, tmp_path):
    assert mutate(count, tmp_path) == {"count": count, "executed": [], "failures": {}}
