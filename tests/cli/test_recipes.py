"""`ddo ls`, `ddo cp`, `ddo validate`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ddo_plugin.cli import main


@pytest.fixture
def ddo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    return run


def test_ls_shows_every_recipe_with_what_the_paper_reports(ddo) -> None:
    lines = ddo("ls").output.splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("edm-cifar10-cond"))
    assert lines[row].split(maxsplit=1)[1] == "CIFAR-10, class-conditional: EDM, 16 rounds"
    assert lines[row + 1].strip() == "fid 1.3, fid of start 1.85, fid after round 1 1.58, hours of round 3"
    names = {line.split()[0] for line in lines if line and not line.startswith(" ")}
    assert {"digits", "edm-cifar10-uncond", "edm2-img64-s", "edm2-img512-l", "var-d16", "var-d30"} <= names


def test_a_copy_is_a_file_that_validates(ddo, tmp_path: Path) -> None:
    assert ddo("cp", "digits").exit_code == 0
    done = ddo("validate", "digits.toml", "--set", "rounds=5")
    assert done.exit_code == 0
    assert "5 rounds, 4 pairs" in done.output
    (tmp_path / "folder").mkdir()
    ddo("cp", "digits", "folder")
    ddo("cp", "digits", "folder/mine.toml")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["digits.toml", "mine.toml"]


def test_nothing_is_overwritten(ddo, tmp_path: Path) -> None:
    (tmp_path / "digits.toml").write_text("mine")
    done = ddo("cp", "digits")
    assert done.exit_code == 2
    assert "not overwritten" in done.output
    assert (tmp_path / "digits.toml").read_text() == "mine"
    (tmp_path / "link.toml").symlink_to("nowhere")
    assert ddo("cp", "digits", "link.toml").exit_code == 2
    assert (tmp_path / "link.toml").is_symlink()


def test_an_unknown_name_gets_the_nearest(ddo) -> None:
    assert "did you mean 'digits'?" in ddo("cp", "digit").output


def test_a_wrong_recipe_ends_with_status_2_and_all_its_lines(ddo, tmp_path: Path) -> None:
    ddo("cp", "digits")
    done = ddo("validate", "digits.toml", "--set", "rounds=0", "--set", "sweep.beta=[0]")
    assert done.exit_code == 2
    assert "2 problems" in done.output
    assert "sweep.beta" in done.output and "rounds" in done.output


def test_a_recipe_of_ours_is_to_be_copied_first(ddo) -> None:
    done = ddo("validate", "digits")
    assert done.exit_code == 2
    assert "ddo cp digits" in done.output
