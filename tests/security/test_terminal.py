"""Codes that steer a terminal, in what a command prints of a stranger's files. Colours of our own are allowed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner

from ddo_plugin.cli import main
from ddo_plugin.jobs.journal import FILE_NAME, Journal

CODE = "\x1b[2J"  # clears the screen
LINES = [
    ["validate", "recipe.toml"],
    ["validate", "damaged.toml"],
    ["selfplay", "recipe.toml", "--dry-run"],
    ["selfplay", "recipe.toml", "--status", "--out=run"],
    ["plan", "recipe.toml"],
    ["inspect", f"{CODE}.pkl"],
    ["inspect", f"{CODE}.pkl", "--source"],
    ["convert", f"{CODE}.pkl", "new.pth"],
    ["eval", "images", f"--ref={CODE}.pkl", "--out=out.json"],
    ["refset", "pack", "images", "set"],
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line).replace(CODE, "CODE"))
def test_no_file_steers_the_terminal(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["cp", "digits", "recipe.toml"]).exit_code == 0
    recipe = Path("recipe.toml").read_text().replace('title = "', r'title = "\u001b[2J')
    Path("recipe.toml").write_text(recipe)
    Path("damaged.toml").write_text(recipe.replace("[sweep]", '[sweep]\n"\\u001b[2J" = 1'))
    Path(f"{CODE}.pkl").write_bytes(pickle.dumps({f"key{CODE}": f"value{CODE}"}))
    Path("images").mkdir()
    Path(f"images/{CODE}.png").write_bytes(b"no image")
    Path("run").mkdir()
    journal = Journal(Path("run") / FILE_NAME)
    journal.begin("settings")
    journal.append("plan", plan=f"p{CODE}", upstream="demo", rounds=[{"candidates": 1, "trainings": 1.0}])
    journal.append("started", task=f"task{CODE}", kind="training", out="p/1", attempt=1)
    journal.append("failed", task=f"task{CODE}", out="p/2", attempt=1, status=1, log=f"{CODE}.log")
    result = CliRunner().invoke(main, line, color=True)
    assert result.exit_code in (0, 1, 2), result.exception
    assert CODE not in result.output
    assert "[2J" in result.output or "plan" in line or "--dry-run" in line
