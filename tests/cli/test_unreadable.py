"""Files and folders without permissions, given to every command wherever it takes a path."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_wrong_input import DIGITS, assert_good, catalogue, no_other_program, run_bounded, world  # noqa: F401

BYPASS = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: the rights by which root reads everything
PATHS = ("unreadable.txt", "unreadable.toml", "unreadable.npz", "unreadable.pkl", "closed", "closed/below")


@pytest.fixture
def ordinary_rights() -> Iterator[None]:
    """Have permissions apply to this thread, also if root runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("needs another user than root")
    libc = ctypes.CDLL(None, use_errno=True)
    header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable
    libc.capget(header, rights)
    before, rights[0] = rights[0], rights[0] & ~BYPASS
    if libc.capset(header, rights) != 0:
        pytest.skip("root cannot give up its rights here")
    yield
    rights[0] = before
    libc.capset(header, rights)


@pytest.fixture
def closed(world: Path, ordinary_rights: None) -> Iterator[Path]:  # noqa: F811
    for name in PATHS[:4]:
        Path(name).write_text("x")
        Path(name).chmod(0)
    Path("closed").mkdir(mode=0)
    Path("set").rename("unreadable")  # a folder that can be read, with files that cannot
    for file in (Path("images/0.png").rename("unreadable/0.png"), *Path("unreadable").glob("*.npy")):
        file.chmod(0)
    yield world
    Path("closed").chmod(0o700)


@pytest.mark.usefixtures("no_other_program")
def test_an_unreadable_path_gives_one_message_and_status_2(closed: Path) -> None:
    with pytest.raises(PermissionError):
        Path("unreadable.txt").read_bytes()
    absent = [(name, line) for name, line in catalogue() if any(word.split("=")[-1] == "absent" for word in line)]
    assert len(absent) > 30
    lines = [(name, [word.replace("absent", path) for word in line]) for name, line in absent for path in PATHS]
    assert_good(lines, closed)


@pytest.mark.parametrize(
    "line",
    [
        *(["inspect", name] for name in PATHS),
        *([command, name] for command in ("validate", "plan", "report", "apply", "status") for name in PATHS),
        *(["eval", name, "--ref=ref.npz", "--out=new.json"] for name in PATHS),
        *(["eval", "images", f"--ref={name}", "--out=new.json"] for name in PATHS),
        *(["refset", "info", name] for name in PATHS),
        *(["refset", "pack", name, "new"] for name in PATHS),
        *(["refset", "pack", "images", f"{name}/new"] for name in PATHS),
        *(["convert", name, "new.pth"] for name in PATHS),
        *(["selfplay", name, "--dry-run"] for name in PATHS),
        *(["sample", f"--network={name}", *DIGITS[1:], "--grid=new.png"] for name in PATHS),
        *(["refset", "make", f"--network={name}", *DIGITS[1:], "--count=2", "--out=new"] for name in PATHS),
        ["refset", "pack", "unreadable", "new"],
        ["refset", "unpack", "unreadable", "new.zip"],
        ["refset", "verify", "unreadable"],
        ["eval", "unreadable", "--ref=ref.npz", "--out=new.json"],
        *(["cp", "digits", f"{name}/new"] for name in PATHS),
    ],
    ids=" ".join,
)
def test_what_cannot_be_read_is_named(closed: Path, line: list[str]) -> None:
    result = run_bounded(line)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert "unreadable" in result.output or "closed" in result.output
