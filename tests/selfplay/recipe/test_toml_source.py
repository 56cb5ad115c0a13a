"""TOML with the lines of its values."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.selfplay.recipe import toml_source

TEXT = '''# a comment with = and [brackets]
title = "a [table] = no"

[sweep]   # [[change]]
alpha = [
    1, # one
    2,
]
"quoted key" = """
beta = 3
"""

[[change]]
from_round = 2
training = { lr = 1, nested.x = 2 }

[[change]]
from_round = 3
[change.training]
lr = 4
[change.training.deep]
y = 5

[resources.slurm]
gpus = 8
'''
EXPECTED = {
    ("title",): 2,
    ("sweep",): 4,
    ("sweep", "alpha"): 5,
    ("sweep", "quoted key"): 9,
    ("change", 0): 13,
    ("change", 0, "from_round"): 14,
    ("change", 0, "training", "lr"): 15,
    ("change", 0, "training", "nested", "x"): 15,
    ("change", 1): 17,
    ("change", 1, "from_round"): 18,
    ("change", 1, "training"): 19,
    ("change", 1, "training", "lr"): 20,
    ("change", 1, "training", "deep", "y"): 22,
    ("resources", "slurm"): 24,
    ("resources", "slurm", "gpus"): 25,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.toml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("place", EXPECTED)
def test_every_value_knows_its_line(place, file: Path) -> None:
    assert toml_source.read(file).where(place) == (EXPECTED[place], f"{file}:{EXPECTED[place]}")


def test_every_place_of_the_file_was_found_and_none_besides(file: Path) -> None:
    def walk(value, place=()):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            if not isinstance(value, list) or isinstance(inner, dict):
                yield (*place, key)
                yield from walk(inner, (*place, key))

    source = toml_source.read(file)
    containers = {("change",), ("resources",), ("resources", "slurm")}  # without a statement of their own
    assert set(source.lines) - containers == set(walk(source.values)) - containers


def test_what_is_missing_is_told_at_its_table(file: Path) -> None:
    source = toml_source.read(file)
    assert source.where(("sweep", "beta"))[0] == 4
    assert source.where(("change", 1, "sweep", "beta"))[0] == 17
    assert source.where(("nowhere", "x"))[0] == 1


def test_overrides_replace_one_value_and_keep_those_beside_it(file: Path) -> None:
    source = toml_source.read(file, ["sweep.alpha=[9]", "title = ../some where", 'new."a b".c=1e-3'])
    assert source.values["sweep"] == {"alpha": [9], "quoted key": "beta = 3\n"}
    assert source.values["title"] == "../some where"  # what is not TOML is text
    assert source.values["new"] == {"a b": {"c": 1e-3}}
    assert source.where(("sweep", "alpha")) == (0, "--set sweep.alpha=[9]")
    assert source.is_typed(("title",)) and not source.is_typed(("sweep", "quoted key"))


@pytest.mark.parametrize("override", ["alpha", "=3", "a..b=3", "a b=3"])
def test_an_override_without_a_key_is_refused(override: str, file: Path) -> None:
    with pytest.raises(UserError, match=r"KEY=VALUE"):
        toml_source.read(file, [override])


def test_what_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("a = 1\nb = \n")
    with pytest.raises(UserError, match=r"a\.toml:2: not valid TOML: Invalid value"):
        toml_source.read(path)
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(UserError, match="not valid TOML"):
        toml_source.read(path)
    with pytest.raises(UserError, match="cannot read"):
        toml_source.read(tmp_path)
