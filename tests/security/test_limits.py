"""The limits on what reading costs: a message says how to raise them, and doing so lets the file pass."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from ddo_plugin.base import image_files, limits
from ddo_plugin.base.archives import open_zip
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.reading import MOST_BYTES, read_json
from ddo_plugin.cli import main
from ddo_plugin.selfplay.recipe import toml_source
from ddo_plugin.snapshots.pickles import network as networks
from ddo_plugin.snapshots.pickles import unpickler
from ddo_plugin.snapshots.pickles.allowance import MOST_OPCODES
from tests.security.pieces import call, const, dict_, get, named, network, pickled, put, storage
from tests.security.readers import TINY


def honest(padding: bytes) -> bytes:
    """A snapshot that is honest but for instructions without an effect."""
    return pickled(padding + network())


def steps() -> bytes:
    return honest(b"N0" * (MOST_OPCODES // 2))


def copies() -> bytes:
    numbers = storage(1 << 20, bytes(4 << 20))
    copied = call(named("torch.storage", "_load_from_bytes"), get()) + b"0"
    return honest(put(const(numbers)) + b"0" + 80 * copied)


def tiny(**kwargs: object) -> bytes:
    arguments = {name: const(value) for name, value in {"width": 4, **kwargs}.items()}
    return pickled(network(kwargs=dict_(arguments)))


def load(path: Path) -> object:
    return networks.load(path, classes={"Tiny": "tiny_net"})


def read_entry(path: Path) -> bytes:
    with open_zip(path) as archive:
        return archive.read("a")


def zeros(size: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(size))
    return stream.getvalue()


def image() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (4096, 4097)).save(stream, "png")
    return stream.getvalue()


CASES: dict[str, tuple[Callable[[], bytes], Callable[[Path], object]]] = {
    "instructions of a pickle": (steps, unpickler.read),
    "memory of a pickle": (copies, unpickler.read),
    "size of a network": (lambda: tiny(extra=300), load),
    "size of a constructor argument": (lambda: tiny(repeat=65537), load),
    "number of constructor arguments": (lambda: tiny(unit="a" * 1100), load),
    "items in constructor arguments": (lambda: tiny(unit=(None,) * 1100, repeat=0), load),
    "entry of a zip": (lambda: zeros(MOST_BYTES + 1), read_entry),
    "pixels of an image": (image, lambda path: image_files.read_image(lambda _: path.read_bytes(), "a.png", path)),
    "recipe": (lambda: b"#" * (toml_source.LARGEST + 1), toml_source.read),
    "JSON": (lambda: b" " * MOST_BYTES + b"1", read_json),
}


@pytest.mark.parametrize("case", CASES)
def test_a_limit_can_be_raised_as_its_message_says(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, read = CASES[case]
    (tmp_path / "tiny_net.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "tiny_net", None)
    del sys.modules["tiny_net"]
    path = tmp_path / "file"
    path.write_bytes(make())
    with pytest.raises(UserError, match="if you trust it, set DDO_LIMITS=2 to double the limits"):
        read(path)
    monkeypatch.setenv(limits.VARIABLE, "2")
    try:
        read(path)
    except UserError as error:  # a network that is larger than it says has other parts than the file
        assert case == "size of a network"
        assert "only the checkout's class has the part more" in error.message


def test_the_limit_of_files_in_a_folder_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MOST_FILES", 2)
    for number in range(4):
        (tmp_path / f"{number}").touch()
    with pytest.raises(UserError, match="more than 2 files, the limit for a folder; if you trust it, set DDO_LIMITS=2"):
        list(image_files.files_below(tmp_path))
    monkeypatch.setenv(limits.VARIABLE, "2")
    assert sorted(image_files.files_below(tmp_path)) == ["0", "1", "2", "3"]


def test_inspect_says_how_to_raise_the_limits(tmp_path: Path) -> None:
    path = tmp_path / "steps.pkl"
    path.write_bytes(steps())
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 1
    assert "It cannot be loaded: more than 1,000,000 opcodes; if you trust it, set DDO_LIMITS=2" in result.output
    result = CliRunner().invoke(main, ["inspect", str(path)], env={limits.VARIABLE: "2"})
    assert "It can be loaded without running its code" in result.output


@pytest.mark.parametrize("value", ["x", "0", "0.5", "-2", "nan", "inf", "1001"])
def test_a_factor_that_is_no_number_from_1_to_1000_is_refused(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("1")
    monkeypatch.setenv(limits.VARIABLE, value)
    with pytest.raises(UserError, match=f"^DDO_LIMITS={value}: must be a number from 1 to 1000$"):
        read_json(tmp_path / "a")
