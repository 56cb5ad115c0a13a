"""Checks a file of `torch.save` before torch reads it.

`torch.load(weights_only=True)` runs no code, but it reserves whatever memory the file asks for, builds tensors that
claim more numbers than the file holds, and nests without limit.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ddo_plugin.snapshots.pickles import storages
from ddo_plugin.snapshots.pickles.allowance import OBJECT, Allowance
from ddo_plugin.snapshots.pickles.constructors import MOST_DIMENSIONS, rebuild_parameter, rebuild_tensor
from ddo_plugin.snapshots.pickles.file_kind import FileKind, kind_of
from ddo_plugin.snapshots.pickles.machine import Constructors, Findings, Machine
from ddo_plugin.snapshots.pickles.nodes import BrokenError, ForbiddenError

DEEPEST = 64
_LEGACY_PICKLES = 5  # magic number, protocol, system, value, keys of the storages
_DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")


def check_checkpoint(path: Path) -> None:
    """Refuse a file that holds anything but tensors and plain data, or asks for more memory than it has bytes."""
    size = path.stat().st_size
    findings = Findings(Allowance(size))
    machine = Machine(_constructors(findings, size), findings)
    if kind_of(path) is FileKind.CHECKPOINT:  # by its first bytes, as torch does
        data = _pickle_in(path, size)
        value = machine.run(io.BytesIO(data), len(data))
    else:
        value = _run_legacy(machine, path, size)
    _check_depth(value)


def _pickle_in(path: Path, size: int) -> bytes:
    """Return the pickle in a zip. Only torch's own reader is asked: another one may see other parts in the same file.

    torch.save compresses nothing, so that all parts together are no larger than the file.
    """
    reader = torch._C.PyTorchFileReader(str(path))
    if sum(map(reader.get_record_size, reader.get_all_records())) > size:
        raise BrokenError("parts that are larger than the file, or compressed")
    return bytes(reader.get_record("data.pkl"))


def _run_legacy(machine: Machine, path: Path, size: int) -> Any:
    with path.open("rb") as file:
        magic, _, _, value, _ = (machine.run(file, size) for _ in range(_LEGACY_PICKLES))
    if magic != storages.MAGIC:
        raise BrokenError("not a file of torch.save")
    return value


def _constructors(findings: Findings, size: int) -> Constructors:
    left, known = [size], dict[str, torch.Tensor]()

    def storage(identity: Any) -> torch.Tensor:
        """Return a tensor without memory for a storage. All storages together fit into the file."""
        claim = storages.read_claim(identity)
        if claim.key not in known:
            left[0] -= claim.numel * claim.dtype.itemsize
            if claim.numel < 0 or left[0] < 0:
                raise BrokenError("tensors with more numbers than the file holds")
            known[claim.key] = torch.empty(claim.numel, dtype=claim.dtype, device="meta")
        if known[claim.key].numel() != claim.numel or known[claim.key].dtype != claim.dtype:
            raise BrokenError("a storage of two sizes")
        return known[claim.key]

    def tensor(*arguments: Any) -> torch.Tensor:
        findings.allowance.take(OBJECT)
        return rebuild_tensor(*arguments)

    def encoded(text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise BrokenError("bytes in another encoding")
        findings.allowance.take(OBJECT + len(text))
        return text.encode("latin1")

    allowed: dict[tuple[str, str], Callable[..., Any]] = {
        ("collections", "OrderedDict"): lambda: OrderedDict(),
        ("_codecs", "encode"): encoded,
        ("torch", "Size"): _size,
        ("torch", "device"): lambda *_: "cpu",
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        **{("torch", name): _never_called for name in (*_DTYPES, *storages.DTYPES)},
    }
    return Constructors(allowed, _attributes, storage)


def _size(sizes: Any) -> tuple[int, ...]:
    """Refuse a long size: torch copies it in each call, and the memo can pass the same one to many calls."""
    if not (isinstance(sizes, tuple) and len(sizes) <= MOST_DIMENSIONS and all(type(size) is int for size in sizes)):
        raise BrokenError("a size of something other than a few numbers")
    return sizes


def _never_called(*_: Any) -> Any:
    raise ForbiddenError("a call of a storage class or dtype")


def _attributes(target: Any, state: Any) -> None:
    """Let a state dict have its `_metadata`, which says nothing of its tensors."""
    if not (isinstance(target, OrderedDict) and isinstance(state, dict) and state.keys() <= {"_metadata"}):
        raise ForbiddenError(f"attributes of a {type(target).__name__}")
    _check_depth(state)


def _check_depth(value: Any) -> None:
    """Refuse nesting that would exhaust the stack of whatever copies or pickles the value. Each part is met once."""
    waiting, seen = [(value, 0)], set()
    while waiting:
        item, depth = waiting.pop()
        if id(item) in seen:
            continue
        if depth > DEEPEST:
            raise BrokenError(f"data nested deeper than {DEEPEST}")
        seen.add(id(item))
        waiting += [(part, depth + 1) for part in reversed(list(_parts(item)))]


def _parts(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        yield from item.values()
    elif isinstance(item, list | tuple | set | frozenset):
        yield from item
