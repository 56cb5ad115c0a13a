"""Pieces of pickles as bytes, so that a file can hold what no honest pickler writes."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping

FLOAT = "FloatStorage"


def const(value: object) -> bytes:
    """A plain value. Its own memo entries are below 1000."""
    return pickle.dumps(value, 3)[2:-1]


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def tuple_(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def list_(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def dict_(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_(*arguments) + b"R"


def put(value: bytes, index: int = 1000) -> bytes:
    return value + b"r" + struct.pack("<I", index)


def get(index: int = 1000) -> bytes:
    return b"j" + struct.pack("<I", index)


def remembered(value: bytes, index: int = 1000) -> bytes:
    """Store a value in the memo and leave nothing on the stack."""
    return put(value, index) + b"0"


def pickled(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def persistent(name: str, state: bytes, source: str = "class Net: ...") -> bytes:
    meta = {"type": text("class"), "version": const(6), "module_src": text(source), "class_name": text(name)}
    return call(named("torch_utils.persistence", "_reconstruct_persistent_obj"), dict_({**meta, "state": state}))


def legacy(
    value: bytes, keys: object = ("0",), tail: bytes = b"", magic: bytes = const(0x1950A86A20F9469CFC6C)
) -> bytes:
    """A file of torch.save in its legacy format: five pickles, then the numbers."""
    parts = (magic, const(1001), const({"little_endian": True}), value, const(list(keys)))
    return b"".join(b"\x80\x02" + part + b"." for part in parts) + tail


def storage(numel: int, data: bytes, kind: str = FLOAT) -> bytes:
    """A saved storage that says that it has `numel` numbers."""
    identity = tuple_(text("storage"), named("torch", kind), text("0"), text("cpu"), const(numel), b"N")
    return legacy(identity + b"Q", tail=struct.pack("<q", numel) + data)


def tensor(size: object, stride: object, saved: bytes, offset: int = 0) -> bytes:
    stored = call(named("torch.storage", "_load_from_bytes"), const(saved))
    hooks = call(named("collections", "OrderedDict"))
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, stored, const(offset), const(size), const(stride), b"\x89", hooks)


def floats(*size: int) -> bytes:
    """An honest tensor of zeros."""
    count, stride = 1, []
    for length in reversed(size):
        stride.insert(0, count)
        count *= length
    return tensor(size, tuple(stride), storage(count, bytes(4 * count)))


def module(
    name: str,
    parameters: Mapping[str, bytes] = {},
    modules: Mapping[str, bytes] = {},
    **state: bytes,
) -> bytes:
    own = {"_parameters": dict_(parameters), "_buffers": dict_({}), "_modules": dict_(modules), "training": b"\x89"}
    return persistent(name, dict_({**own, **state}))


def network(*, kwargs: bytes | None = None, args: bytes | None = None, width: int = 4, **state: bytes) -> bytes:
    """A snapshot whose network is the Tiny of readers.py."""
    inner = module("Inner", {"weight": floats(width, width)})
    given = {"_init_args": args or tuple_(), "_init_kwargs": kwargs or dict_({"width": const(width)})}
    return dict_({"ema": module("Tiny", modules={"model": inner}, **given, **state)})


def torch_zip(data: bytes, storages: Mapping[str, bytes] = {}, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A file of torch.save in its present format, with this pickle in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def directory(*entries: tuple[str, int, int, int, int, int]) -> bytes:
    """The directory of a zip: name, method, checksum, compressed and whole size, and position of each entry."""
    return b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, method, 0, 0, checksum, packed, whole, len(name), *[0] * 5, at)
        + name.encode()
        for name, method, checksum, packed, whole, at in entries
    )


def end_of_zip(count: int, size: int, at: int) -> bytes:
    """The end of a zip whose directory of so many entries and bytes begins at this position."""
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at + size, 1)
    short = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), size, at, 0)
    return (wide + locator if count > 0xFFFF else b"") + short


def two_directories(data: bytes) -> bytes:
    """A torch zip with this pickle, compressed. Python's zipfile sees other entries, which are small and stored."""
    names = ("archive/data.pkl", "archive/version")
    body, entries = b"", []
    for name, content in zip(names, (data, b"3\n"), strict=True):
        checksum, packed = zlib.crc32(content), zlib.compress(content, 9, -zlib.MAX_WBITS)
        entries.append((name, zipfile.ZIP_DEFLATED, checksum, len(packed), len(content), len(body)))
        sizes = (checksum, len(packed), len(content), len(name), 0)
        body += struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, *sizes) + name.encode() + packed
    seen = directory(*entries)
    return body + seen + directory(*[(name, 0, 0, 4, 4, 0) for name in names]) + end_of_zip(2, len(seen), len(body))


def stored_tensor(key: str, numel: int, size: object, stride: object, kind: str = FLOAT) -> bytes:
    """A tensor of a torch zip, whose numbers are in the part `data/KEY`."""
    identity = tuple_(text("storage"), named("torch", kind), text(key), text("cpu"), const(numel))
    hooks = call(named("collections", "OrderedDict"))
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, identity + b"Q", const(0), const(size), const(stride), b"\x89", hooks)
