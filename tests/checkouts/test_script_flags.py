"""Options of scripts that are read, never run."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts import script_flags
from ddo_plugin.checkouts.script_flags import Option

CLICK = """
import click, nowhere
raise RuntimeError("this was run")

@click.command()
@click.option("-d", "--data", metavar="ZIP", type=str, required=True)
@click.option("--P_mean", "P_mean", type=float)
@click.option("--batch-gpu", type=click.IntRange(min=1))
@click.option("--arch", type=click.Choice(["a", "b"]))
@click.option("--size", type=parse_size)
@click.option("--limit", type=click.IntRange(min=LIMIT))
@click.option("--dry-run", is_flag=True)
def main(**options):
    pass
"""
TAP = """
from tap import Tap
class Args(Tap):
    depth: int = 16
    pairs: tuple = None
    data_path: str
"""


def test_click_options_are_found_with_their_types(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(CLICK)
    found = {one.name: one for one in script_flags.read(tmp_path, "train.py")}
    assert list(found) == ["data", "P_mean", "batch-gpu", "arch", "size", "limit", "dry-run"]
    assert found["data"] == Option("data", click.STRING, required=True)
    assert found["P_mean"].type is click.FLOAT
    assert isinstance(found["batch-gpu"].type, click.IntRange) and found["batch-gpu"].type.min == 1
    assert tuple(found["arch"].type.choices) == ("a", "b")
    assert found["size"].type is found["limit"].type is None  # what they take is the script's own affair
    assert found["dry-run"].flag


def test_fields_of_a_tap_class_are_found_in_what_the_script_imports(tmp_path: Path) -> None:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils/arg_util.py").write_text(TAP)
    (tmp_path / "train.py").write_text("def main():\n    from utils import arg_util\n")
    assert script_flags.read(tmp_path, "train.py") == [
        Option("depth", click.INT),
        Option("pairs", None),
        Option("data_path", click.STRING, required=True),
    ]


def test_a_script_without_options_is_told(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys\n")
    with pytest.raises(UserError, match="its source has no options"):
        script_flags.read(tmp_path, "train.py")
