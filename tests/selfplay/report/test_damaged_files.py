"""A report of a folder whose files are damaged, or come from a stranger: one line says which file it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ddo_plugin.cli import main
from ddo_plugin.finetuning import statistics
from tests.selfplay.test_damaged_journal import whole

SCORES = ("", "{}", "[]", "5", '{"score": "x"}', '{"score": null}', '{"score": {}}', '{"score": 1%s}' % ("0" * 400))
SPREADS = ('{"score": 1, "spread": "x"}', '{"score": 1, "spread": -5}', '{"score": 1, "logp_real": "x"}')
LINES = ("5", '"x"', '{"step": 1, "logps/real": "x"}', '{"rewards/real": null}', "[" * 100_000)
GRIDS = {
    "one dimension": np.zeros(5, "u1"),
    "no image": np.zeros((0, 3, 4, 4), "u1"),
    "no channel": np.zeros((5, 0, 4, 4), "u1"),
    "two channels": np.zeros((5, 2, 4, 4), "u1"),
    "texts": np.zeros((5, 3, 4, 4), "U3"),
}


def report(folder: Path) -> str:
    done = CliRunner().invoke(main, ["report", str(folder)])
    assert done.exit_code in (0, 2), done.output
    assert isinstance(done.exception, SystemExit | None), repr(done.exception)
    return done.output if done.exit_code else ""


@pytest.mark.parametrize("text", [*SCORES, *SPREADS])
def test_the_file_of_an_evaluation(tmp_path: Path, text: str) -> None:
    whole(tmp_path)
    (tmp_path / "eval.json").write_text(text)
    said = report(tmp_path)
    assert "eval.json" in said
    assert "repeat the evaluation" in said


@pytest.mark.parametrize("name", GRIDS)
def test_the_images_of_an_evaluation(tmp_path: Path, name: str) -> None:
    whole(tmp_path)
    np.save(tmp_path / "eval.grid.npy", GRIDS[name])
    assert "eval.grid.npy: cannot be read" in report(tmp_path)


@pytest.mark.parametrize("line", LINES)
def test_damaged_lines_of_statistics_are_left_out(tmp_path: Path, line: str) -> None:
    whole(tmp_path)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / statistics.FILE_NAME).write_text(f'{line}\n{{"step": 1, "logps/real": 2.0}}\n')
    assert report(tmp_path) == ""
    assert statistics.read(tmp_path / "p" / statistics.FILE_NAME) == [{"step": 1, "logps/real": 2.0}]


def test_a_number_of_a_round_that_is_too_large(tmp_path: Path) -> None:
    whole(tmp_path)
    journal = tmp_path / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"round": 1', f'"round": {10**20}'))
    assert "is damaged" in report(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
def test_a_pipe_in_place_of_an_evaluation_does_not_block(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "eval.json").unlink()
    os.mkfifo(tmp_path / "eval.json")
    assert "not a regular file" in report(tmp_path)
