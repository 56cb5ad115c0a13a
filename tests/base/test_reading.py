"""Reading of files whose content or kind is not known."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click
import pytest

from ddo_plugin.base.errors import UserError, system_errors_in_one_line
from ddo_plugin.base.reading import parsing, read_bytes, read_json


@pytest.mark.parametrize("error", [ValueError("a\nb"), KeyError("a"), RecursionError(), OSError(5, "I/O")])
def test_whatever_a_parser_raises_is_one_line(error: Exception) -> None:
    with (
        pytest.raises(UserError, match=r"^file: cannot be read \(.+\); create or download the file again$"),
        parsing("file: cannot be read"),
    ):
        raise error


@pytest.mark.parametrize("error", [UserError("ours"), click.BadParameter("ours"), KeyboardInterrupt()])
def test_our_own_errors_and_interruptions_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, parsing("file"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full", "fifo"])
def test_a_pipe_and_a_device_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with pytest.raises(UserError, match="not a regular file"):
        read_bytes(Path(path))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="larger than 67,108,864 bytes"):
        read_json(tmp_path / "sparse")


def test_what_the_system_refuses_is_one_line_with_the_path_and_its_reason() -> None:
    with pytest.raises(UserError, match=f"^/a: {os.strerror(errno.EIO)}; check the path"), system_errors_in_one_line():
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/a")
    with pytest.raises(UserError, match="not valid UTF-8"), system_errors_in_one_line():
        b"\xff".decode()
    with pytest.raises(BrokenPipeError), system_errors_in_one_line():  # click ends silently
        raise BrokenPipeError(errno.EPIPE, "pipe")


def test_a_message_does_not_steer_the_terminal() -> None:
    assert UserError("a\x1b[31m\r\udcffé\nb").format_message() == "a\\x1b[31m\\r\\udcffé\nb"
