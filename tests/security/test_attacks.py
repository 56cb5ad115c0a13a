"""Every file that attacks the readers of untrusted files, opened by each of them.

Promises: nothing of a file is run; a file costs at most four times its size and 256 MiB of memory; it is read, or
refused in one line.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.security.attacks import code_attacks, exhaustion_attacks
from tests.security.pieces import network, pickled
from tests.security.readers import SLACK, SPARE, TIMES

ROOT = Path(__file__).parents[2]
MOST_SECONDS, SECONDS_FOR_EACH_MB = 20, 2  # of CPU time, for one reader
SAMPLE = 10  # of so many files, one is in `make test`


def open_by_all(files: Mapping[str, bytes], folder: Path) -> list[dict[str, Any]]:
    """Return what each reader made of each file."""
    given = folder / "files"
    given.mkdir()
    for number, (name, content) in enumerate(files.items()):
        (given / f"{number:03d} {re.sub(r'[^A-Za-z0-9^]+', '-', name)}.pkl").write_bytes(content)
    names = ["class_emb.weight", "word_embed.weight", "pos_1LC", "head.weight", "lvl_1L", "blocks.0.ffn.fc1.weight"]
    torch.save({name: torch.zeros(3, 4) for name in names}, folder / "plain.pth")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DDO_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "tests.security.readers", str(given)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def problems(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what the files achieved that they must not, each by the file's name."""
    executed = {one["name"]: one["executed"] for one in found if one["executed"]}
    failed = {one["name"]: one["failures"] for one in found if one["failures"]}
    dear = {one["name"]: one["grown"] >> 20 for one in found if one["grown"] > TIMES * one["size"] + SPARE + SLACK}
    slow = {
        one["name"]: one["seconds"]
        for one in found
        if max(one["seconds"].values(), default=0) > MOST_SECONDS + SECONDS_FOR_EACH_MB * one["size"] / 1e6
    }
    return {"ran code": executed, "failed": failed, "took memory": dear, "took time": slow}


def check(found: list[dict[str, Any]]) -> None:
    assert {what: files for what, files in problems(found).items() if files} == {}


def sample(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return dict(list(files.items())[::SAMPLE])


def test_no_code_of_a_file_is_run_in_a_sample(tmp_path):
    check(open_by_all(sample(code_attacks()), tmp_path))


def test_no_file_exhausts_the_machine_in_a_sample(tmp_path):
    check(open_by_all(sample(exhaustion_attacks()), tmp_path))


@pytest.mark.thorough
def test_no_code_of_a_file_is_run(tmp_path):
    files = code_attacks()
    assert len(files) > 300
    check(open_by_all(files, tmp_path))


@pytest.mark.thorough
def test_no_file_exhausts_the_machine(tmp_path):
    files = exhaustion_attacks()
    assert len(files) > 90
    check(open_by_all(files, tmp_path))


def test_an_honest_network_is_opened_by_those_that_load_networks(tmp_path):
    """Otherwise the tests above would pass with readers that refuse everything."""
    (found,) = open_by_all({"honest": pickled(network())}, tmp_path)
    check([found])
    assert {"inspect", "load", "sample", "eval"} <= set(found["opened"])
