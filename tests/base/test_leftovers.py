"""What a killed writer left under a temporary name is removed by the next writer, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ddo_plugin.base import files
from ddo_plugin.base.files import atomic_folder, atomic_write, refuse_to_replace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")

WRITER = """
import sys
from pathlib import Path
from ddo_plugin.base.files import atomic_folder, atomic_write
path = Path(sys.argv[2])
with {"file": atomic_write, "folder": atomic_folder}[sys.argv[1]](path) as made:
    made.write(b"new") if sys.argv[1] == "file" else (made / "new").touch()
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_swept", set())


def start(kind: str, path: Path) -> subprocess.Popen[str]:
    """Start a process that is in the middle of writing."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", WRITER, kind, str(path)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_with_the_next_write_to_the_folder(kind: str, tmp_path: Path) -> None:
    process = start(kind, tmp_path / "out")
    process.kill()
    process.communicate()
    assert len(names(tmp_path)) == 1
    with atomic_write(tmp_path / "other"):
        pass
    assert names(tmp_path) == ["other"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_living_process_writes_stays(kind: str, tmp_path: Path) -> None:
    process = start(kind, tmp_path / "out")
    refuse_to_replace(tmp_path / "other")
    with atomic_folder(tmp_path / "other"):
        pass
    process.communicate()
    assert process.returncode == 0
    assert names(tmp_path) == ["other", "out"]


def test_files_of_others_stay_and_an_old_folder_until_the_new_one_is_there(tmp_path: Path) -> None:
    kept = [".a.tmp", ".a.0123456789abcde.tmp", "a.0123456789abcdef.tmp", ".b.0123456789abcdef.old"]
    for name in [*kept, ".c.0123456789abcdef.old", "c"]:
        (tmp_path / name).touch()
    refuse_to_replace(tmp_path / "new")
    assert names(tmp_path) == sorted([*kept, "c"])
