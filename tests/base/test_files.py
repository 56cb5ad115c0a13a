"""Files and folders that are whole or absent, also when the process that writes them is killed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddo_plugin.base import files
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import atomic_folder, atomic_write, sha256_file, write_json
from ddo_plugin.base.result_file import check_place

RACES = 20


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class BrokenError(Exception):
    """Raised in the middle of a write."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_file_appears_with_its_contents_in_a_folder_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    with atomic_write(path) as file:
        file.write(b"contents")
        assert not path.exists()
    assert path.read_bytes() == b"contents"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("interruption", [BrokenError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(interruption), atomic_write(path) as file:
        file.write(b"new")
        raise interruption
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"σ": 1})
    with pytest.raises(TypeError):
        write_json(path, {"σ": object()})
    assert path.read_text(encoding="utf-8") == '{\n  "σ": 1\n}\n'


def test_a_result_with_an_impossible_name_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        check_place(tmp_path / ("x" * 300))


def test_a_block_that_raises_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(BrokenError), atomic_folder(path) as folder:
        (folder / "new").touch()
        raise BrokenError
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_replaces_whatever_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "kept").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("absent", "full", "file", "link", "dangling"):
        with atomic_folder(tmp_path / name) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "new").write_bytes(b"new")
        assert not (tmp_path / name).is_symlink()
        assert names(tmp_path / name) == ["sub"]
        assert (tmp_path / name / "sub" / "new").read_bytes() == b"new"
    assert names(target) == ["kept"]  # what a link points to is somebody else's
    assert visible(tmp_path) == names(tmp_path)  # no leftovers


def test_a_folder_that_cannot_be_put_in_place_gives_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    renamed = Path.replace

    def refuse_the_second(self: Path, target: Path) -> Path:
        if self != path and target == path and (self / "new").exists():
            raise OSError("disk gone")
        return renamed(self, target)

    monkeypatch.setattr(Path, "replace", refuse_the_second)
    with pytest.raises(OSError, match="disk gone"), atomic_folder(path) as folder:
        (folder / "new").touch()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def write_new(path: Path, before_the_end: Callable[[], object] = lambda: None) -> None:
    with atomic_write(path, replace=False) as file:
        file.write(b"new")
        before_the_end()


def fill_new(path: Path, before_the_end: Callable[[], object] = lambda: None) -> None:
    with atomic_folder(path, replace=False) as folder:
        (folder / "new").touch()
        before_the_end()


def make_file(path: Path) -> None:
    path.write_text("mine")


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").touch()


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("create", [write_new, fill_new])
@pytest.mark.parametrize("appear", [make_file, make_folder, Path.mkdir, make_dangling_link])
@pytest.mark.parametrize("during_the_work", [False, True])
def test_what_exists_or_appears_in_the_place_of_something_new_is_left_alone(
    tmp_path: Path, create: Callable[..., None], appear: Callable[[Path], None], during_the_work: bool
) -> None:
    path = tmp_path / "out"
    if not during_the_work:
        appear(path)
    with pytest.raises(UserError, match="already exists and is not overwritten"):
        create(path, lambda: appear(path) if during_the_work else None)
    assert names(tmp_path) == ["out"]
    appear(tmp_path / "other")
    assert path.is_dir() == (tmp_path / "other").is_dir()
    assert path.is_symlink() == (tmp_path / "other").is_symlink()
    if path.is_dir():
        assert names(path) == names(tmp_path / "other")
    elif not path.is_symlink():
        assert path.read_text() == "mine"


@pytest.mark.parametrize("create", [write_new, fill_new])
@pytest.mark.parametrize("appear", [make_file, make_folder, make_dangling_link])
def test_what_appears_after_the_last_look_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: Callable[..., None], appear: Callable[[Path], None]
) -> None:
    path, looks = tmp_path / "out", []
    monkeypatch.setattr(files, "refuse_to_replace", looks.append)
    with pytest.raises((OSError, UserError), match="out"):
        create(path, lambda: appear(path))
    assert len(looks) == 3  # at the beginning, at the end, and to say what stands in the way
    assert names(tmp_path) == ["out"]
    assert not path.exists() or path.is_dir() or path.read_text() == "mine"


@pytest.mark.parametrize("create", [write_new, fill_new])
def test_one_of_two_processes_creates_it_and_the_other_says_that_it_did_not(
    tmp_path: Path, create: Callable[..., None]
) -> None:
    for number in range(RACES):
        start, path = tmp_path / f"start {number}", tmp_path / f"out {number}"
        children = [in_a_process(lambda path=path, start=start: create(path, lambda: wait_for(start))) for _ in "ab"]
        start.touch()
        assert sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children) == [0, 2]
        assert path.exists()
    assert visible(tmp_path) == names(tmp_path)


def in_a_process(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except UserError as error:
            status = error.exit_code
        finally:
            os._exit(status)
    return pid


def wait_for(file: Path) -> None:
    while not file.exists():
        pass


@pytest.mark.parametrize("create", [write_new, fill_new])
def test_folders_made_for_something_new_go_with_it(tmp_path: Path, create: Callable[..., None]) -> None:
    def fail() -> None:
        raise BrokenError

    with pytest.raises(BrokenError):
        create(tmp_path / "a/b/out", fail)
    assert names(tmp_path) == []
    with pytest.raises(UserError, match="too long"):
        create(tmp_path / "a" / ("x" * 300) / "out")
    assert names(tmp_path) == []


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        write_new(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"new"


def test_json_of_a_name_that_is_not_utf8_comes_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff")
    write_json(tmp_path / "a.json", {"path": name, "σ": 1})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"path": name, "σ": 1}


def test_a_file_system_without_hard_links_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_new(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    monkeypatch.setattr(files, "refuse_to_replace", lambda _: None)
    with pytest.raises(UserError, match="File exists"):
        write_new(tmp_path / "file")
    assert names(tmp_path) == ["file"]


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from ddo_plugin.base.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half of the new conte")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_WHILE_FILLING = """
import os, signal, sys
from pathlib import Path
from ddo_plugin.base.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "first of two").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
PLAIN_WRITE = """
import os, signal, sys
with open(sys.argv[1], "wb") as file:
    file.write(b"half of the new conte")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_until_killed(code: str, path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for old in (None, b"old"):
        if old is not None:
            path.write_bytes(old)
        run_until_killed(KILLED_WHILE_WRITING, path)
        assert (path.read_bytes() if path.exists() else None) == old
    run_until_killed(PLAIN_WRITE, path)  # the wrong version
    assert path.read_bytes() != b"old"


def test_a_killed_process_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    run_until_killed(KILLED_WHILE_FILLING, path)
    assert not path.exists()
    path.mkdir()
    (path / "old").touch()
    run_until_killed(KILLED_WHILE_FILLING, path)
    assert names(path) == ["old"]
    assert visible(tmp_path) == ["folder"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file_or_folder(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"x")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "inner").touch()
        (tmp_path / "plain").touch()
        (tmp_path / "plain folder").mkdir()
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == mode(tmp_path / "plain") == 0o666 & ~mask
    assert mode(tmp_path / "folder") == mode(tmp_path / "plain folder") == 0o777 & ~mask


def test_sha256_is_that_of_all_bytes(tmp_path: Path) -> None:
    contents = os.urandom((1 << 20) + 17)  # more than one chunk
    (tmp_path / "file").write_bytes(contents)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(contents).hexdigest()
