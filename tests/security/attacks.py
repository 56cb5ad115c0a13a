"""Files that try to run code or to exhaust the machine, made by code: name -> content."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import torch

from tests.security.pieces import (
    call,
    const,
    dict_,
    directory,
    end_of_zip,
    floats,
    get,
    legacy,
    list_,
    module,
    named,
    network,
    persistent,
    pickled,
    put,
    remembered,
    storage,
    stored_tensor,
    tensor,
    text,
    torch_zip,
    tuple_,
    two_directories,
)

MARK = "touch pwned"
PYTHON = "open('pwned', 'w')"
SOURCE = f"{PYTHON}\nclass Net: ...\n"

# Globals, and the arguments with which they run code, import a module or read a file.
CALLS = {
    ("os", "system"): (MARK,),
    ("posix", "system"): (MARK,),
    ("nt", "system"): (MARK,),
    ("os", "popen"): (MARK,),
    ("os", "execlp"): ("touch", "touch", "pwned"),
    ("builtins", "eval"): (PYTHON,),
    ("builtins", "exec"): (PYTHON,),
    ("__builtin__", "eval"): (PYTHON,),
    ("builtins", "open"): ("pwned", "w"),
    ("builtins", "__import__"): ("antigravity",),
    ("importlib", "import_module"): ("antigravity",),
    ("subprocess", "check_call"): (["touch", "pwned"],),
    ("subprocess", "Popen"): (["touch", "pwned"],),
    ("pty", "spawn"): (["touch", "pwned"],),
    ("runpy", "run_path"): ("evil.py",),
    ("timeit", "main"): (["-s", PYTHON],),
    ("cProfile", "run"): (PYTHON,),
    ("code", "interact"): (),
    ("webbrowser", "open"): ("http://example.invalid",),
    ("shutil", "rmtree"): ("/nonexistent",),
    ("pathlib", "Path"): ("pwned",),
    ("torch", "load"): ("other.pkl",),
    ("torch.serialization", "load"): ("other.pkl",),
    ("torch.hub", "load"): ("a/b", "c"),
    ("torch.jit", "load"): ("other.pt",),
    ("numpy", "load"): ("other.npy",),
    ("numpy.testing._private.utils", "runstring"): (PYTHON, {}),
    ("pickle", "loads"): (b"cos\nsystem\n(S'touch pwned'\ntR.",),
    ("_pickle", "loads"): (b"cos\nsystem\n(S'touch pwned'\ntR.",),
    ("dnnlib.util", "call_func_by_name"): (),
    ("dnnlib.util", "get_obj_by_name"): ("os.system",),
    ("torch_utils.persistence", "_src_to_module"): (PYTHON,),
    ("torch_utils.persistence", "import_hook"): (None,),
    ("torch._utils", "_set_obj_state"): ({}, {}),
    ("torch._utils", "_rebuild_parameter_with_state"): (None,),
    ("torch.storage", "os.system"): (MARK,),
    ("collections", "OrderedDict.__init__"): (),
}


def _evil() -> bytes:
    return call(named("os", "system"), text(MARK))


# What an opcode can do with a global.
FORMS: dict[str, bytes] = {
    "REDUCE": _evil(),
    "REDUCE of a text GLOBAL": b"cos\nsystem\n" + tuple_(text(MARK)) + b"R",
    "NEWOBJ": named("os", "system") + tuple_(text(MARK)) + b"\x81",
    "NEWOBJ_EX": named("os", "system") + tuple_(text(MARK)) + b"}\x92",
    "INST": b"(" + text(MARK) + b"ios\nsystem\n",
    "OBJ": b"(" + named("os", "system") + text(MARK) + b"o",
    "BUILD": named("dnnlib.util", "EasyDict") + b"N" + dict_({"__init__": named("os", "system")}) + b"\x86b",
    "BUILD of an object": call(named("dnnlib.util", "EasyDict")) + dict_({"__reduce__": _evil()}) + b"b",
    "EXT1": b"\x82\x01" + tuple_(text(MARK)) + b"R",
    "EXT2": b"\x83\x01\x00" + tuple_(text(MARK)) + b"R",
    "EXT4": b"\x84\x01\x00\x00\x00" + tuple_(text(MARK)) + b"R",
    "PERSID": b"Pos.system\n",
    "BINPERSID": _evil() + b"Q",
    "getattr": call(
        call(named("builtins", "getattr"), call(named("builtins", "__import__"), text("os")), text("system")),
        text(MARK),
    ),
    "partial": call(call(named("functools", "partial"), named("os", "system"), text(MARK))),
    "NEXT_BUFFER": b"\x97" + _evil() + b"0",
}

# Where the result can stand in a file.
POSITIONS: dict[str, Callable[[bytes], bytes]] = {
    "the value": pickled,
    "the network": lambda evil: pickled(dict_({"ema": evil})),
    "a nested list": lambda evil: pickled(dict_({"ema": list_(dict_({"a": tuple_(evil)}))})),
    "a key": lambda evil: pickled(b"}" + evil + b"Ns"),
    "an item of a set": lambda evil: pickled(b"\x8f(" + evil + b"\x90"),
    "what is dropped": lambda evil: pickled(evil + b"0" + network()),
    "an attribute of the network": lambda evil: pickled(network(note=evil)),
    "constructor arguments": lambda evil: pickled(network(kwargs=dict_({"width": evil}))),
    "a parameter": lambda evil: pickled(dict_({"ema": module("Tiny", {"weight": evil})})),
    "a hook": lambda evil: pickled(network(_forward_hooks=b"}K\x00" + evil + b"s")),
    "statistics": lambda evil: pickled(dict_({"fid": dict_({"mu": evil, "sigma": evil})})),
    "a saved storage": lambda evil: pickled(call(named("torch.storage", "_load_from_bytes"), const(legacy(evil)))),
    "the magic number of a storage": lambda evil: pickled(
        call(named("torch.storage", "_load_from_bytes"), const(legacy(b"N", magic=evil)))
    ),
    "the state of a numpy array": lambda evil: pickled(
        call(named("numpy._core.multiarray", "_reconstruct"), named("numpy", "ndarray"), tuple_(b"K\x00"), const(b"b"))
        + tuple_(const(1), tuple_(const(1)), evil, b"\x89", evil)
        + b"b"
    ),
    "a torch zip": lambda evil: torch_zip(pickled(evil)),
    "a torch zip among weights": lambda evil: torch_zip(pickled(dict_({"head.weight": evil}))),
    "a legacy checkpoint": legacy,
    "a legacy checkpoint's system": lambda evil: legacy(
        b"N", magic=const(0x1950A86A20F9469CFC6C) + b".\x80\x02" + evil
    ),
    "a zip in a zip": lambda evil: torch_zip(torch_zip(pickled(evil))),
}


def code_attacks() -> dict[str, bytes]:
    """More than 300 files that try to run code."""
    files = {f"{form} in {place}": wrap(evil) for form, evil in FORMS.items() for place, wrap in POSITIONS.items()}
    for (module_name, name), arguments in CALLS.items():
        evil = call(named(module_name, name), *map(const, arguments))
        files[f"{module_name}.{name}"] = pickled(dict_({"ema": evil}))
        files[f"{module_name}.{name} in a torch zip"] = torch_zip(pickled(evil))
    hidden = persistent("Net", dict_({}), SOURCE)
    files |= {f"a source in {place}": wrap(hidden) for place, wrap in POSITIONS.items()}
    stream = io.BytesIO()
    np.savez(stream, mu=np.array([_Evil()], dtype=object), sigma=np.zeros(1))
    files["an object array in an npz"] = stream.getvalue()
    stream = io.BytesIO()
    torch.save(_Evil(), stream)
    files["a nested checkpoint"] = pickle.dumps({"ema": stream.getvalue(), "a": _Evil()})
    return files


class _Evil:
    def __reduce__(self):
        return os.system, (MARK,)


MB = 1 << 20


def _copied(what: bytes, copy: bytes, times: int = 3000) -> bytes:
    """A value of the memo that each of many calls copies."""
    return pickled(remembered(what) + list_(*[copy] * times))


def _shared(levels: int, width: int = 100, wrap: Callable[..., bytes] = list_, leaf: bytes = b"N") -> bytes:
    """References to references: a number of items that is `width` to the power of `levels`."""
    body = remembered(leaf)
    for _ in range(levels):
        body += remembered(wrap(*[get()] * width))
    return body + get()


def _dict_of(*items: bytes) -> bytes:
    return dict_({str(number): item for number, item in enumerate(items)})


def _safetensors(items: bytes) -> bytes:
    header = b'{"a":[' + items + b"0]}"
    return struct.pack("<Q", len(header)) + header


def _many_parts(count: int) -> bytes:
    """A zip of so many empty parts: its directory alone."""
    parts = directory(("a/", 0, 0, 0, 0, 0)) * count
    return b"PK\3\4" + parts + end_of_zip(count, len(parts), 4)


def _var(**changed: bytes) -> bytes:
    """A torch zip in the manner of VAR's weights, with other tensors."""
    names = ["class_emb.weight", "word_embed.weight", "pos_1LC", "head.weight", "blocks.0.ffn.fc1.weight"]
    tensors = {name: stored_tensor("0", 4, (2, 2), (2, 1)) for name in names}
    tensors |= {"lvl_1L": stored_tensor("1", 1, (1, 1), (1, 1), "LongStorage")}
    tensors |= {"attn_bias_for_masking": stored_tensor("0", 4, (1,), (1,))}
    data = {"0": bytes(16), "1": struct.pack("<q", 10**9)}
    return torch_zip(
        pickled(dict_({**tensors, **{name.replace("__", "."): value for name, value in changed.items()}})), data
    )


def exhaustion_attacks() -> dict[str, bytes]:
    """More than 60 files that ask for memory or time out of proportion to their size."""
    scalar, dtype = named("numpy._core.multiarray", "scalar"), call(named("numpy", "dtype"), text("u1"))
    frombuffer = named("numpy._core.numeric", "_frombuffer")
    reconstruct = call(
        named("numpy._core.multiarray", "_reconstruct"), named("numpy", "ndarray"), tuple_(b"K\x00"), const(b"b")
    )
    array_of = b"\x96" + struct.pack("<Q", MB) + bytes(MB)  # a bytearray
    load = named("torch.storage", "_load_from_bytes")
    thousand_names = list_(*[text(str(number)) for number in range(100_000)])
    state = _dict_of(*[b"N"] * 50_000)
    long_text = text("x" * MB)
    args = {
        "width": {"width": const(10**9)},
        "negative": {"width": const(-(10**9))},
        "beyond 64 bits": {"width": const(10**30)},
        "extra": {"width": const(4), "extra": const(60_000)},
        "a list for a number": {"width": const([0] * 900)},
        "a list of widths": {"width": const(4), "filter": const([1] * 900)},
        "a text times a number": {"width": const(4), "repeat": const(10**10), "unit": text("x")},
        "a list times a number": {"width": const(4), "repeat": const(10**10), "unit": const([0])},
        "numbers of a float": {"width": const(1e300)},
        "blocks": {"width": const(4), "blocks": const(10**9)},
        "many blocks": {"width": const(4), "blocks": const(65_000)},
        "a name of the module": {"width": const(4), "model_type": text("gadget")},
        "a function of a module": {"width": const(4), "model_type": text("torch")},
    }
    files = {f"constructor arguments: {name}": pickled(network(kwargs=dict_(given))) for name, given in args.items()}
    files["constructor arguments: a gadget by position"] = pickled(network(args=tuple_(const(4), text("gadget"))))
    files["constructor arguments: half of a gigabyte"] = pickled(network(args=tuple_(const(20_000))))
    for times in (3000, 30_000):
        files |= {
            f"{times} numbers from one bytearray": _copied(array_of, call(scalar, dtype, get()), times),
            f"{times} arrays of one bytearray": _copied(
                array_of, call(frombuffer, get(), dtype, tuple_(const(MB)), text("C")), times
            ),
            f"{times} states of one bytearray": _copied(
                array_of, reconstruct + tuple_(const(1), tuple_(const(MB)), dtype, b"\x89", get()) + b"b", times
            ),
            f"{times} storages of one text": _copied(const(storage(MB // 4, bytes(MB))), call(load, get()), times),
            f"{times} sets of one list": _copied(thousand_names, call(named("builtins", "set"), get()), times),
            f"{times} objects of one state": _copied(state, persistent("Net", get()), times),
            f"{times} modules of one state": _copied(
                state, call(named("torch.nn.modules.container", "ModuleDict")) + get() + b"b", times
            ),
        }
    for name, wrap in (("lists", list_), ("tuples", tuple_), ("dicts", _dict_of)):
        bomb = _shared(10, wrap=wrap)
        files |= {
            f"shared {name} as a value": pickled(dict_({"note": bomb})),
            f"shared {name} in a loss": pickled(dict_({"loss_fn": persistent("Loss", dict_({"a": bomb}))})),
            f"shared {name} as constructor arguments": pickled(network(kwargs=bomb)),
            f"shared {name} in the network": pickled(network(note=bomb)),
            f"shared {name} in a torch zip": torch_zip(pickled(bomb)),
        }
    files |= {
        "shared texts as a value": pickled(dict_({"note": _shared(1, 900, leaf=long_text)})),
        "shared texts in a loss": pickled(
            dict_({"loss_fn": persistent("Loss", remembered(long_text) + _dict_of(*[list_(*[get()] * 90)] * 900))})
        ),
        "shared texts as arguments": pickled(remembered(long_text) + network(kwargs=_dict_of(*[get()] * 900))),
        "a tensor of 6^8 numbers": pickled(dict_({"a": tensor((6,) * 8, (0,) * 8, storage(1, bytes(4)))})),
        "an honest tensor of 4^8 numbers": pickled(dict_({"a": floats(*[4] * 8)})),
        "a tensor of 2^40 numbers": pickled(dict_({"a": tensor((2**40 - 1,), (0,), storage(1, bytes(4)))})),
        "a tensor of many dimensions": pickled(dict_({"a": tensor((1,) * 5000, (1,) * 5000, storage(1, bytes(4)))})),
        "a tensor without numbers": pickled(dict_({"a": tensor((0, 2**39, 2**39), (1, 1, 1), storage(1, bytes(4)))})),
        "views of one storage as parameters": pickled(
            remembered(floats(500, 500))
            + dict_({"ema": module("Tiny", {str(number): get() for number in range(5000)})})
        ),
        "a storage of 900,000 opcodes, often": _copied(const(legacy(b"N0" * 450_000 + b"N")), call(load, get()), 100),
        "a storage that claims 2^39 numbers": pickled(call(load, const(storage(2**39, b"")))),
        "one long global, often": pickled(remembered(long_text) + list_(*[get() + get() + b"\x93"] * 1500)),
        "60,000 globals": pickled(list_(*[named("os", f"a{number}") for number in range(60_000)])),
        "a long class name, often": pickled(
            remembered(long_text)
            + list_(
                *[persistent("Net", dict_({}), f"a = {number}").replace(text("Net"), get()) for number in range(2000)]
            )
        ),
        "a long source": pickled(dict_({"a": persistent("Net", dict_({}), "\x01" * (4 * MB))})),
        "a wide text": pickled(text("x" * (30 * MB) + "\U0001f600")),
        "deep lists": pickled(b"]" * 400_000 + b"a" * 399_999),
        "deep tuples": pickled(b")" + b"\x85" * 500_000),
        "deep dicts": pickled(b"".join(b"}X\x01\x00\x00\x00a" for _ in range(200_000)) + b"N" + b"s" * 200_000),
        "deep lists in a torch zip": torch_zip(pickled(b"]" * 400_000 + b"a" * 399_999)),
        "a list that holds itself": pickled(put(b"]") + get() + b"a"),
        "a module that holds itself": pickled(
            dict_({"ema": put(module("Tiny")) + b"0" + module("Tiny", modules={"a": get()})})
        ),
        "modules in two places": pickled(
            dict_(
                {
                    "ema": _shared(
                        30, 2, lambda *items: module("Tiny", modules={"a": items[0], "b": items[1]}), module("Tiny")
                    )
                }
            )
        ),
        "long names of modules": pickled(
            remembered(long_text)
            + dict_(
                {
                    "ema": module(
                        "Tiny",
                        modules={
                            str(n): module("Tiny", modules={}, a=b"}" + get() + module("Tiny") + b"s")
                            for n in range(500)
                        },
                    )
                }
            )
        ),
        "keys of equal hash": pickled(
            b"}(" + b"".join(const(n * (2**61 - 1)) + b"N" for n in range(1, 100_000)) + b"u"
        ),
        "items of a set of equal hash": pickled(
            call(named("builtins", "set"), list_(*[const(n * (2**61 - 1)) for n in range(1, 60_000)]))
        ),
        "entries of the memo of equal hash": pickled(
            b"N" + b"".join(b"p%d\n" % (n * (2**61 - 1)) for n in range(1, 60_000))
        ),
        "shared lists as statistics": pickled(
            dict_({"fid": dict_({"mu": _shared(4, leaf=const(1.0)), "sigma": const(1.0)})})
        ),
        "shared rows of a covariance": pickled(
            remembered(list_(*[const(1.0)] * 6000))
            + dict_({"fid": dict_({"mu": get(), "sigma": list_(*[get()] * 6000)})})
        ),
        "one size, often": torch_zip(
            pickled(remembered(tuple_(*[b"K\x01"] * 100_000)) + list_(*[call(named("torch", "Size"), get())] * 30_000))
        ),
        "a zip of two directories": two_directories(pickled(text("x" * (600 * MB)))),
        "a zip of 900,000 parts": _many_parts(900_000),
        "a safetensors header of small objects": _safetensors(b'{"a":1},' * (3 * MB)),
        "a long integer as a key, often": pickled(remembered(const(1 << (8 * MB))) + b"}" + (get() + b"Ns") * 100_000),
        "an integer of 100,000 digits": pickled(dict_({"a": b"L" + b"9" * 100_000 + b"L\n"})),
        "an integer of a megabyte": pickled(dict_({"a": const(1 << (8 * MB))})),
        "integers as names": pickled(b"}(" + const(1 << 20_000) + b"Nu"),
        "a million opcodes": pickled(b"N0" * 3_000_000 + b"N"),
        "a million sets": pickled(b"](" + b"\x8f" * 2_000_000 + b"e"),
        "a million dicts": pickled(b"](" + b"}NNs" * 1_000_000 + b"e"),
        "a million marks": pickled(b"(" * 2_000_000),
        "a million entries of the memo": pickled(
            b"N" + b"".join(b"r" + struct.pack("<I", n) for n in range(1_000_000))
        ),
        "100,000 objects": pickled(_dict_of(*[persistent("Net", b"}")] * 50_000)),
        "bytes that the file does not have": pickled(b"\x8e" + struct.pack("<Q", 2**40) + b"x"),
        "text that the file does not have": pickled(b"\x8d" + struct.pack("<Q", 2**40) + b"x"),
        "a number that the file does not have": pickled(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x"),
        "a frame that the file does not have": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        "a bytearray by number": pickled(call(named("builtins", "bytearray"), const(10**10))),
        "a bytearray by number in a torch zip": torch_zip(pickled(call(named("builtins", "bytearray"), const(10**10)))),
        "a compressed pickle": torch_zip(pickled(text("x" * (300 * MB))), compression=zipfile.ZIP_DEFLATED),
        "a legacy storage of 2^36 numbers": legacy(
            tuple_(text("storage"), named("torch", "FloatStorage"), text("0"), text("cpu"), const(2**36), b"N") + b"Q"
        ),
        "weights: the scales claim 10^9": _var(),
        "weights: an expanded tensor": _var(pos_1LC=stored_tensor("0", 4, (2**40 - 1,), (0,))),
        "weights: a storage beyond the file": _var(pos_1LC=stored_tensor("2", 2**36, (4,), (1,))),
        "weights: scales that are no integers": _var(lvl_1L=stored_tensor("0", 4, (1, 4), (4, 1))),
        "weights: no dimension": _var(head__weight=stored_tensor("0", 4, (), ())),
        "weights: 5000 blocks": _var(**{f"blocks__{n}__a": stored_tensor("0", 4, (1,), (1,)) for n in range(5000)}),
        "weights: a name of many wrappers": torch_zip(
            pickled(dict_({"module." * 150_000: stored_tensor("0", 4, (1,), (1,))})), {"0": bytes(16)}
        ),
        "weights: a trainer without parts": torch_zip(
            pickled(
                dict_({"trainer": dict_({"var_wo_ddp": dict_({}), "var_opt": b"N", "config": b"N", "vae_local": b"N"})})
            )
        ),
        "weights: trainer is a number": torch_zip(pickled(dict_({"trainer": const(1)}))),
    }
    return files
