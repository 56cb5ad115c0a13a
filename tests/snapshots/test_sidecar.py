"""The file beside a snapshot that says where it came from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks.types import Run
from ddo_plugin.snapshots import sidecar


def run(outdir: Path) -> Run:
    options = {"ddo": "base.pkl", "ddo_alpha": 4.0, "ddo_fakes": None}
    return Run("edm", outdir, options, {"reference": {"source": "base.pkl", "sha256": "ab"}, "fakes": None})


def snapshot(folder: Path, name: str, step: int) -> Path:
    path = folder / name
    path.write_bytes(name.encode())
    sidecar.write(run(folder), path, step)
    return path


def test_a_sidecar_identifies_its_snapshot_and_what_made_it(tmp_path: Path) -> None:
    path = snapshot(tmp_path, "network-snapshot-000050.pkl", 50)
    assert sidecar.read(path) == {
        "snapshot": "network-snapshot-000050.pkl",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "step": 50,
        "upstream": "edm",
        "options": {"ddo": "base.pkl", "ddo_alpha": 4.0},
        "reference": {"source": "base.pkl", "sha256": "ab"},
        "fakes": None,
    }


def test_snapshots_come_oldest_first_by_step_and_not_by_name(tmp_path: Path) -> None:
    names = [snapshot(tmp_path, name, step).name for name, step in (("z.pkl", 2), ("a.pkl", 10), ("m.pkl", 9))]
    assert [path.name for path in sidecar.snapshots(tmp_path)] == [names[0], names[2], names[1]]


def test_two_snapshots_of_one_step_come_in_one_order(tmp_path: Path) -> None:
    for name in ("b-0.100.pkl", "a-0.050.pkl", "c-0.200.pkl"):
        snapshot(tmp_path, name, 7)
    assert [path.name for path in sidecar.snapshots(tmp_path)] == ["a-0.050.pkl", "b-0.100.pkl", "c-0.200.pkl"]


def test_files_without_a_sidecar_are_no_snapshots_and_neither_are_sidecars_without_a_file(tmp_path: Path) -> None:
    kept = snapshot(tmp_path, "kept.pkl", 1)
    snapshot(tmp_path, "deleted.pkl", 2).unlink()
    (tmp_path / "training-state.pt").touch()
    assert sidecar.snapshots(tmp_path) == [kept]


def test_no_sidecar_is_left_of_a_snapshot_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sidecar.write(run(tmp_path), tmp_path / "never-written.pkl", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}", "[]", "5", '{"step": "x"}', "[" * 100_000])
def test_a_damaged_sidecar_is_reported_in_one_line(tmp_path: Path, content: str) -> None:
    path = snapshot(tmp_path, "a.pkl", 1)
    path.with_name("a.pkl.ddo.json").write_text(content)
    for look in (sidecar.step, sidecar.sha256, lambda path: sidecar.snapshots(path.parent)):
        with pytest.raises(UserError, match=r"a\.pkl\.ddo\.json.*; restore it") as refused:
            look(path)
        assert "\n" not in refused.value.message
