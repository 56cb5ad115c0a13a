"""Attacks on the reader of network pickles: each is refused in one line, and nothing of it runs."""

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from ddo_plugin.base.errors import UserError
from ddo_plugin.snapshots.pickles import unpickler

MARK = "touch pwned"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def pickled(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def nested(**options) -> bytes:
    stream = io.BytesIO()
    torch.save(Call(os.system, MARK), stream, **options)
    return pickle.dumps({"ema": Call(torch.storage._load_from_bytes, stream.getvalue())})


OS_SYSTEM = stack_global("os", "system")
GETATTR = stack_global("builtins", "getattr")
IMPORT = stack_global("builtins", "__import__")
LOAD_FROM_BYTES = stack_global("torch.storage", "_load_from_bytes")

# What stock pickle.load executes: each of these leaves the file `pwned`.
EXECUTED = {
    **{f"os.system, protocol {p}": pickle.dumps(Call(os.system, MARK), protocol=p) for p in range(6)},
    "hidden in a network's place": pickle.dumps({"ema": [{"state": Call(os.system, MARK)}]}),
    "builtins.eval": pickled(call(stack_global("builtins", "eval"), text("open('pwned', 'w')"))),
    "builtins.exec": pickled(call(stack_global("builtins", "exec"), text("open('pwned', 'w')"))),
    "a chain of getattr": pickled(call(call(GETATTR, call(IMPORT, text("os")), text("system")), text(MARK))),
    "operator.attrgetter": pickled(
        call(call(call(stack_global("operator", "attrgetter"), text("system")), call(IMPORT, text("os"))), text(MARK))
    ),
    "functools.partial": pickled(call(call(stack_global("functools", "partial"), OS_SYSTEM, text(MARK)))),
    "a dotted name through an innocent module": pickled(call(stack_global("shutil", "os.system"), text(MARK))),
    "the opcode INST": b"(S'touch pwned'\nios\nsystem\n.",
    "the opcode OBJ": b"(cos\nsystem\nS'touch pwned'\no.",
    "the text opcode GLOBAL": b"cos\nsystem\n(S'touch pwned'\ntR.",
    "Python 2's name of a module": b"c__builtin__\neval\n(S\"open('pwned', 'w')\"\ntR.",
    "a subprocess": pickled(
        call(stack_global("subprocess", "check_call"), b"](" + text("touch") + text("pwned") + b"e")
    ),
    "keys that are calls": pickled(b"}" + call(OS_SYSTEM, text(MARK)) + b"Ns"),
    "an object array of numpy": pickle.dumps(np.array([Call(os.system, MARK)], dtype=object)),
    "a call after the value": pickled(b"}" + call(OS_SYSTEM, text(MARK)) + b"0"),
}
# The same needs torch or a registry to be executed.
FORBIDDEN = {
    "a nested evil pickle": nested(),
    "a nested evil pickle, legacy format": nested(_use_new_zipfile_serialization=False),
    "the extension registry": pickled(b"\x82\x01)R"),
    "gadgets of torch._utils": pickled(call(stack_global("torch._utils", "_set_obj_state"), b"}", b"}")),
    "torch._utils, with state": pickled(call(stack_global("torch._utils", "_rebuild_parameter_with_state"), b"N")),
    "torch.load": pickled(call(stack_global("torch.serialization", "load"), text("other.pkl"))),
    "a dotted name below an allowed module": pickled(stack_global("torch_utils.persistence", "sys.modules")),
    "a dotted name below an allowed name": pickled(stack_global("collections", "OrderedDict.__init__")),
    "another class of torch.nn": pickled(stack_global("torch.nn.modules.container", "Sequential") + b")\x81"),
    "state for a class": pickled(
        stack_global("dnnlib.util", "EasyDict") + b"N}" + text("__init__") + OS_SYSTEM + b"s\x86b"
    ),
    "keyword arguments": pickled(stack_global("dnnlib.util", "EasyDict") + b")}\x92"),
    "a persistent id": pickled(text("anything") + b"Q"),
    "a text persistent id": b"Panything\n.",
    "a numpy type of objects": pickle.dumps(np.dtype(object)),
    "a structured numpy type": pickle.dumps(np.dtype([("a", "f4")])),
    "line breaks in a name": pickled(stack_global("os\nUserError: all is well", "system\x1b[2J")),
}


def tuples_nested(depth: int) -> bytes:
    return b"K\x01" + b"2\x86" * depth  # DUP TUPLE2: hashing it takes 2**depth steps


def storage(numel: int, data: bytes, kind: str = "FloatStorage") -> bytes:
    """A storage as torch.save writes it, that says it has `numel` numbers."""
    identity = ("storage", getattr(torch, kind), "0", "cpu", numel, None)
    stream = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(value, stream, protocol=2)
    pickler = pickle.Pickler(stream, protocol=2)
    pickler.persistent_id = lambda value: identity if value == "it" else None
    pickler.dump("it")
    pickle.dump(["0"], stream, protocol=2)
    return stream.getvalue() + struct.pack("<q", numel) + data


def tensor(size, stride, offset=0, saved=None) -> bytes:
    saved = storage(2, bytes(8)) if saved is None else saved
    stored = Call(torch.storage._load_from_bytes, saved)
    return pickle.dumps(
        Call(torch._utils._rebuild_tensor_v2, stored, offset, size, stride, False, collections.OrderedDict())
    )


HUGE = 2**39
DAMAGED = {
    "nothing of a pickle": b"not a pickle at all",
    "a truncated file": pickle.dumps({"ema": "x" * 1000})[:-500],
    "bytes that the file has not": pickled(b"\x8e" + struct.pack("<Q", HUGE) + b"x"),
    "text that the file has not": pickled(b"\x8d" + struct.pack("<Q", HUGE) + b"x"),
    "a number that the file has not": pickled(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x"),
    "a storage larger than its bytes": tensor((2,), (1,), saved=storage(HUGE, bytes(8))),
    "a storage smaller than its bytes": tensor((1,), (1,), saved=storage(1, bytes(8))),
    "a storage of negative size": tensor((1,), (1,), saved=storage(-1, b"")),
    "a tensor larger than its storage": tensor((3,), (1,)),
    "a tensor blown up by strides of 0": tensor((HUGE,), (0,)),
    "a tensor beyond its storage": tensor((2,), (1,), offset=1),
    "a tensor before its storage": tensor((1,), (1,), offset=-1),
    "a tensor whose sizes overflow": tensor((2**33, 2**33), (0, 0)),
    "an array larger than its bytes": pickle.dumps(np.zeros(4)).replace(b"K\x04\x85", b"K\x05\x85"),
    "tuples that take forever to hash": pickled(b"}" + tuples_nested(60) + b"Ns"),
    "a set of such tuples": pickled(b"\x8f(" + tuples_nested(60) + b"\x90"),
    "an empty stack": pickled(b"R"),
    "a mark as a value": pickled(b"(\x85"),
    "a missing memo entry": pickled(b"h\x07"),
    "a call of data": pickled(call(text("x"))),
    "items for data": pickled(text("x") + b"Na"),
    "a persistent object without source": pickled(
        call(stack_global("torch_utils.persistence", "_reconstruct_persistent_obj"), b"}")
    ),
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a pickle into the current folder, where an attack would leave its mark."""
    monkeypatch.chdir(tmp_path)

    def write(content: bytes):
        path = tmp_path / "network.pkl"
        path.write_bytes(content)
        return path

    return write


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        unpickler.read(path, trust_option="--ddo-trust")
    assert caught.value.exit_code == 2
    assert caught.value.message.isprintable()  # one line, no escape sequences
    assert not (path.parent / "pwned").exists()
    return caught.value.message


@pytest.mark.parametrize("name", [*EXECUTED, *FORBIDDEN])
def test_an_attack_is_refused_and_not_executed(write, name):
    path = write((EXECUTED | FORBIDDEN)[name])
    message = refusal(path)
    unpickler.survey(path)
    assert not (path.parent / "pwned").exists()
    if "nested evil pickle" not in name:
        assert "may run code" in message and message.endswith("--ddo-trust")


@pytest.mark.parametrize("name", EXECUTED)
def test_stock_pickle_executes_the_same_file(write, name):
    path = write(EXECUTED[name])
    script = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-c", script, path.name], cwd=path.parent, capture_output=True)
    assert (path.parent / "pwned").exists()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_without_reserving_what_it_claims(write, name):
    path = write(DAMAGED[name])
    tracemalloc.start()
    try:
        assert "damaged" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("module", "name"), [("os", "system"), ("builtins", "eval"), ("numpy", "load")])
def test_the_refusal_names_the_global(write, module, name):
    assert f"({module}.{name})" in refusal(write(pickled(call(stack_global(module, name), text(MARK)))))


def test_a_huge_memo_index_reserves_nothing(write):
    path = write(pickled(b"}r" + struct.pack("<I", 2**31)))
    assert unpickler.read(path) == {}


def test_many_nested_lists_do_not_exhaust_the_stack(write):
    value = unpickler.read(write(pickled(b"]" * 400_000 + b"a" * 399_999)))
    assert value == [value[0]]


def test_too_many_opcodes_are_refused(write, monkeypatch):
    monkeypatch.setattr("ddo_plugin.snapshots.pickles.allowance.MOST_OPCODES", 1000)
    assert "opcodes" in refusal(write(pickled(b"]0" * 1000 + b"N")))


def test_no_class_or_function_of_ours_is_reached_by_state(write):
    """A guarded find_class is not enough: with it, a class that is allowed can be changed by the file."""

    class Guarded(pickle.Unpickler):
        def find_class(self, module, name):
            assert (module, name) == ("dnnlib.util", "EasyDict")
            return Allowed

    class Allowed:
        pass

    content = pickled(stack_global("dnnlib.util", "EasyDict") + b"N}" + text("__call__") + text("x") + b"s\x86b")
    Guarded(io.BytesIO(content)).load()
    assert Allowed.__call__ == "x"
    refusal(write(content))


def test_embedded_source_stays_text(write, persistent):
    source = "open('pwned', 'w')\nclass Net: pass"
    node = unpickler.read(write(pickle.dumps({"ema": persistent("Net", {"a": 1}, source)})))["ema"]
    assert (node.class_name, node.source, node.attributes()) == ("Net", source, {"a": 1})
    assert not (write(b"").parent / "pwned").exists()


def test_a_survey_names_every_global_even_of_nested_pickles(write):
    found = unpickler.survey(write(FORBIDDEN["a nested evil pickle, legacy format"]))
    assert found.globals["torch.storage._load_from_bytes"] is True
    assert found.globals["posix.system"] is False
    assert "posix.system" in found.refusals


@pytest.mark.parametrize("protocol", [3, 4, 5])  # older ones have no bytes: upstream never wrote them
def test_tensors_and_arrays_equal_what_pickle_load_gives(write, protocol):
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
    content = pickle.dumps(
        {
            "tensors": [(torch.randn(3, 4) * 5).to(dtype) for dtype in dtypes],
            "views": [torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1), torch.arange(9.0)[2:7:2]],
            "small": [torch.zeros(0, 3), torch.tensor(3.5), torch.nn.Parameter(torch.randn(2, 2))],
            "arrays": [np.ones((2, 3), dtype=dtype) * 0.5 for dtype in ("f4", ">f8", "f2", "c16")],
            "integers": [np.arange(6, dtype=dtype).reshape(2, 3) for dtype in ("i8", "u1", ">i4")],
            "order": [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array([True, False])],
            "numbers": [np.float64(0.1), np.int32(7), np.bool_(True)],
        },
        protocol=protocol,
    )
    assert_equal(unpickler.read(write(content)), pickle.loads(content))


def assert_equal(read, stock):
    if isinstance(stock, dict):
        assert list(read) == list(stock)
        read, stock = list(read.values()), list(stock.values())
    if isinstance(stock, list):
        assert len(read) == len(stock)
        for a, b in zip(read, stock, strict=True):
            assert_equal(a, b)
    elif isinstance(stock, torch.Tensor):
        assert read.dtype == stock.dtype and read.stride() == stock.stride() and torch.equal(read, stock)
    else:
        assert read.dtype == stock.dtype and np.array_equal(read, stock)


@pytest.mark.parametrize("old", [False, True])
def test_numpy_is_read_under_its_old_and_new_module_names(write, old):
    value = np.arange(3.0)
    content = pickle.dumps([value, value[1]], protocol=3)  # names without a length before them
    new_name, old_name = b"numpy._core.multiarray", b"numpy.core.multiarray"
    content = content.replace(new_name, old_name) if old else content.replace(old_name, new_name)
    array, number = unpickler.read(write(content))
    assert np.array_equal(array, value) and number == 1.0


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04rest", "a torch checkpoint"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"", "an empty file"),
        (struct.pack("<Q", 2) + b"{}", "a safetensors file"),
    ],
)
def test_other_files_are_called_by_their_name(write, content, what):
    assert what in refusal(write(content))


def test_a_legacy_checkpoint_is_called_by_its_name(tmp_path):
    torch.save({"net": torch.zeros(2)}, tmp_path / "state.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="a torch checkpoint"):
        unpickler.read(tmp_path / "state.pt")


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        unpickler.read(tmp_path / "none.pkl")
