"""`ddo inspect` on files that are no honest network; honest ones are in tests/upstream/test_snapshots.py."""

import hashlib
import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from click.testing import CliRunner

from ddo_plugin.cli import main


@pytest.fixture
def inspect(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_an_attack_is_shown_and_not_run(inspect, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"ema": Evil(), "note": "hello\x1b[2J"}))
    result = inspect("evil.pkl")
    assert result.exit_code == 1
    assert "posix.system   not allowed" in result.output
    assert "Loading it may run code" in result.output
    assert "\x1b" not in result.output
    assert not (tmp_path / "pwned").exists()


def test_a_truncated_pickle_is_said_to_be_damaged(inspect, tmp_path):
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps({"ema": "x" * 1000})[:-500])
    result = inspect("cut.pkl")
    assert result.exit_code == 1
    assert "It cannot be loaded: " in result.output


def test_a_wrong_sha256_stops_before_anything_is_read(inspect, tmp_path):
    (tmp_path / "net.pkl").write_bytes(b"x")
    result = inspect("net.pkl", "--sha256", "0" * 64)
    assert result.exit_code == 2
    assert hashlib.sha256(b"x").hexdigest() in result.output


def test_a_url_is_fetched(inspect, tmp_path):
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({}))
    result = inspect((tmp_path / "net.pkl").as_uri())
    assert "It holds no network" in result.output


def test_checkpoints_and_safetensors_are_called_by_their_name(inspect, tmp_path):
    torch.save({"net": torch.zeros(2)}, tmp_path / "state.pt")
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "net.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    (tmp_path / "pointer.pkl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    expected = {"state.pt": "a torch checkpoint", "net.safetensors": "1 tensors", "pointer.pkl": "git lfs pull"}
    for name, words in expected.items():
        result = inspect(name)
        assert result.exit_code == 1
        assert words in result.output


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_is_examined_without_running_its_code(inspect, tmp_path, zipped):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    for name, more in (("plain.pth", 1), ("evil.pth", Evil())):
        content = {"w": torch.zeros(2), "more": more}
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert "It holds only tensors and plain data" in inspect("plain.pth").output
    evil = inspect("evil.pth")
    assert evil.exit_code == 1
    assert "Loading it may run code" in evil.output and "posix.system" in evil.output
    assert not (tmp_path / "pwned").exists()


def test_another_zip_is_not_called_a_checkpoint(inspect, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.png", b"")
    assert "It is not a file of torch.save, or it is damaged." in inspect("images.zip").output


def test_what_holds_no_network_does_not_pass(inspect, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "page").write_text("<!doctype html>")
    assert [inspect(name).exit_code for name in ("empty", "page")] == [1, 1]


@pytest.mark.parametrize("header", [b'{"a":nonsense', b"{" * 5000, b'{"a": "\xff"}'])
def test_a_damaged_safetensors_header_is_one_line(inspect, tmp_path, header):
    (tmp_path / "net.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    result = inspect("net.safetensors")
    assert result.exit_code == 2
    assert "header of this safetensors file is damaged" in result.output


def test_a_missing_file_is_one_line(inspect):
    result = inspect("none.pkl")
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
