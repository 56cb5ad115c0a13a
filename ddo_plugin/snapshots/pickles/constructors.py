"""The globals that a network pickle may refer to, and the function of ours that is called instead of each.

The list holds what snapshots of EDM and EDM2 refer to under torch 2.13 and numpy 2.4, numpy's older module names, and
what other pickle protocols write for the same objects. None of these functions imports, compiles or calls anything
that a file names.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ddo_plugin.snapshots.pickles import storages
from ddo_plugin.snapshots.pickles.allowance import ENTRY, OBJECT, Allowance
from ddo_plugin.snapshots.pickles.machine import Constructors, Findings, is_quick_key, one_line
from ddo_plugin.snapshots.pickles.nodes import BrokenError, ForbiddenError, Node

PERSISTENCE_VERSION = 6  # of the NVlabs repositories' torch_utils.persistence
MOST_DIMENSIONS = 16
_LONGEST_CLASS_NAME = 128


class _DType:
    """A numpy dtype of plain numbers under construction: a pickle gives the byte order after the name."""

    def __init__(self, text: str, order: str = "<"):
        self.text, self.order = text, order

    def get(self) -> np.dtype:
        return np.dtype(self.order + self.text)


def constructors(findings: Findings, *, survey: bool) -> Constructors:
    """Return the constructors for a network pickle. `findings` also records sources, and what storages refer to."""
    allowance = findings.allowance

    def load_from_bytes(data: Any) -> torch.Tensor:
        return storages.read(data, findings, survey=survey)

    def persistent_object(meta: Any) -> Node:
        node = _persistent_object(meta)
        allowance.take(OBJECT + ENTRY * len(node.state))  # every look at the state costs its size
        findings.sources.setdefault(node.source or "", {})[node.class_name] = None
        return node

    def charged(make: Callable[..., Any], argument: int) -> Callable[..., Any]:
        """Count the memory of a copy of an argument before it is made."""

        def call(*arguments: Any) -> Any:
            allowance.take(_copied_bytes(arguments[argument]) if len(arguments) > argument else OBJECT)
            return make(*arguments)

        return call

    allowed: dict[tuple[str, str], Callable[..., Any]] = {
        ("builtins", "set"): charged(_set, 0),
        ("collections", "OrderedDict"): _ordered_dict,
        ("dnnlib.util", "EasyDict"): _easy_dict,
        ("numpy", "dtype"): _dtype,
        ("numpy", "ndarray"): _ndarray,
        ("torch.nn.modules.container", "ModuleDict"): _module_dict,
        ("torch.storage", "_load_from_bytes"): load_from_bytes,
        ("torch._utils", "_rebuild_tensor_v2"): charged(rebuild_tensor, 1),
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): persistent_object,
    }
    for core in ("numpy.core", "numpy._core"):  # the name before and after numpy 2
        allowed[f"{core}.multiarray", "_reconstruct"] = charged(_array, 1)
        allowed[f"{core}.multiarray", "scalar"] = charged(_scalar, 1)
        allowed[f"{core}.numeric", "_frombuffer"] = charged(_array_from_buffer, 0)  # pickle protocol 5
    return Constructors(allowed, lambda target, state: _build(target, state, allowance))


def _copied_bytes(value: Any) -> int:
    if isinstance(value, bytes | bytearray):
        return OBJECT + len(value)
    return OBJECT + ENTRY * len(value) if isinstance(value, list | dict | tuple) else OBJECT


def _build(target: Any, state: Any, allowance: Allowance) -> None:
    if isinstance(target, Node) and not target.state and isinstance(state, dict):
        allowance.take(_copied_bytes(state))
        if not _has_text_keys(state):
            raise BrokenError("a state whose keys are not names")
        target.state.update(state)
    elif isinstance(target, _DType) and isinstance(state, tuple) and len(state) >= 2 and state[1] in ("<", ">", "|"):
        target.order = state[1]
    elif isinstance(target, np.ndarray) and target.size == 0 and isinstance(state, tuple) and len(state) == 5:
        allowance.take(_copied_bytes(state[4]))
        _fill_array(target, state)
    else:
        raise BrokenError(f"state for a {type(target).__name__}")


def _has_text_keys(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(key, str) for key in state)


def _set(items: Any = ()) -> set[Any]:
    if not (isinstance(items, list) and all(isinstance(item, str | int) and is_quick_key(item) for item in items)):
        raise BrokenError("a set of something other than names")
    return set(items)


def _ordered_dict() -> OrderedDict[Any, Any]:
    return OrderedDict()


def _easy_dict() -> dict[Any, Any]:
    return {}


def _module_dict() -> Node:
    return Node("ModuleDict")


def _persistent_object(meta: Any) -> Node:
    """Return an object of a class whose source the file carries as inert data. The source stays text."""
    if not (isinstance(meta, dict) and meta.get("type") == "class" and meta.get("version") == PERSISTENCE_VERSION):
        raise BrokenError(f"a persistent object of another version than {PERSISTENCE_VERSION}")
    name, source, state = meta.get("class_name"), meta.get("module_src"), meta.get("state")
    if not (isinstance(name, str) and isinstance(source, str) and isinstance(state, dict) and _has_text_keys(state)):
        raise BrokenError("a persistent object without class name, source or state")
    if len(name) > _LONGEST_CLASS_NAME or not name.isidentifier():
        raise BrokenError("a persistent object whose class has no proper name")
    return Node(name, source, state)


def rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> torch.Tensor:
    """Return a view of a storage. Refuse one that reaches beyond it or is larger."""
    if not (isinstance(storage, torch.Tensor) and _naturals((offset,)) and _naturals(size) and _naturals(stride)):
        raise BrokenError("a tensor of unexpected parts")
    if len(size) != len(stride):
        raise BrokenError("a tensor whose size and stride differ in length")
    if hooks or metadata:
        raise ForbiddenError("a tensor with hooks")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) > storage.numel() or (0 not in size and last >= storage.numel()):
        raise BrokenError("a tensor that reaches beyond its data")
    return torch.as_strided(storage, size, stride, offset if 0 not in size else 0)


def rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> torch.Tensor:
    """Return the tensor of a parameter."""
    if not isinstance(data, torch.Tensor):
        raise BrokenError("a parameter that is not a tensor")
    if hooks:
        raise ForbiddenError("a parameter with hooks")
    return data


def _naturals(values: Any) -> bool:
    if not isinstance(values, tuple) or len(values) > MOST_DIMENSIONS:
        return False
    return all(type(value) is int and 0 <= value < 2**40 for value in values)


def _ndarray(*_: Any) -> Any:
    raise BrokenError("a bare numpy array")


def _dtype(text: Any, *_: Any) -> _DType:
    if not (isinstance(text, str) and re.fullmatch(r"[<>|]?[biufc]\d{1,2}", text)):
        raise ForbiddenError(f"numpy data of type {one_line(text) if isinstance(text, str) else type(text).__name__}")
    return _DType(text.lstrip("<>|"), text[0] if text[0] in "<>|" else "<")


def _scalar(dtype: Any, data: Any) -> np.generic:
    values = _numbers(dtype, data)
    if len(values) != 1:
        raise BrokenError("a numpy number of the wrong length")
    return values[0]


def _array(*_: Any) -> np.ndarray:
    return np.zeros((0,), "b")


def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    values = _numbers(dtype, data)
    if not (_naturals(shape) and math.prod(shape) == len(values) and order in ("C", "F")):
        raise BrokenError("a numpy array of the wrong shape")
    return values.reshape(shape, order=order)


def _fill_array(array: np.ndarray, state: tuple[Any, ...]) -> None:
    _, shape, dtype, is_fortran, data = state
    values = _array_from_buffer(data, dtype, shape, "F" if is_fortran else "C")
    array.__setstate__((1, values.shape, values.dtype, False, values.tobytes()))  # type: ignore[arg-type]  # stub is wrong


def _numbers(dtype: Any, data: Any) -> np.ndarray:
    if not (isinstance(dtype, _DType) and isinstance(data, bytes | bytearray)):
        raise BrokenError("numpy data of unexpected parts")
    return np.frombuffer(bytes(data), dtype.get())
