"""Loads a network from its pickle: built by the checkout's class and filled strictly. Nothing of the file is run.

With `trust`, the file is loaded as upstream does: by `pickle.load`, which runs the source that the file carries.
"""

from __future__ import annotations

import dataclasses
import importlib
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.limits import raised
from ddo_plugin.snapshots.pickles import budget, unpickler
from ddo_plugin.snapshots.pickles.budget import TooBigError
from ddo_plugin.snapshots.pickles.contents import (
    NetworkInfo,
    network_classes,
    network_info,
    network_node,
    sha256_text,
    state_dict,
)
from ddo_plugin.snapshots.pickles.machine import one_line
from ddo_plugin.snapshots.pickles.nodes import BrokenError, Node, plain
from ddo_plugin.snapshots.pickles.shown import shown

_SAME_NUMBER = 1e-4  # constants that upstream computes in fp32 differ in their last digits between machines
_LARGEST_ARGUMENT = 1 << 16  # more than any width, resolution or number of classes
_MOST_ARGUMENTS = 1024  # numbers and characters; the published networks have less than 100


@dataclass(frozen=True)
class Loaded:
    """A network in `eval()`, without gradients, on the CPU, in the dtype of the file."""

    module: torch.nn.Module
    info: NetworkInfo
    source_matches: bool  # whether the file carries the same source as the local class


def load(
    path: Path,
    *,
    trust: bool = False,
    key: str = "ema",
    overrides: Mapping[str, Any] | None = None,
    classes: Mapping[str, str] | None = None,
    trust_option: str = "--trust",
) -> Loaded:
    """Return the network `key` of a snapshot, bit-equal to the result of upstream's `pickle.load`.

    `overrides` replaces settings such as dropout=0: constructor arguments, or with `trust` the attributes of that name.
    `classes` says which classes may be built, each with its module, importable because the checkout is on `sys.path`.
    By default they are those that the upstreams declare.
    """
    if trust:
        return _load_trusted(path, key, overrides or {})
    node = network_node(unpickler.read(path, trust_option=trust_option), key, path)
    try:
        info, tensors = network_info(node), state_dict(node)
        upstream = _upstream_module(
            path, node.class_name, network_classes() if classes is None else classes, trust_option
        )
        module = _construct(upstream, info, tensors, dict(overrides or {}))
        _compare(node, module, frozenset(overrides or ()))
    except (BrokenError, TooBigError) as error:
        raise UserError(f"{path}: the checkout's {node.class_name} cannot load this network: {error}") from None
    _fill(path, module, tensors)
    return Loaded(module, info, _source_of(module) == node.source)


def _upstream_module(path: Path, class_name: str, classes: Mapping[str, str], trust_option: str) -> ModuleType:
    if class_name not in classes:
        if module_of_another := network_classes().get(class_name):
            raise UserError(
                f"{path}: its network is a {class_name} of {module_of_another}, a module of another upstream; run this "
                "in a checkout of it"
            )
        raise UserError(
            f"{path}: its network is a {one_line(class_name)}, but without running the file's own code only "
            f"{', '.join(classes)} can be built; if you trust its author, add {trust_option}"
        )
    module = _import(path, classes[class_name])
    if not isinstance(getattr(module, class_name, None), type):
        raise UserError(
            f"{path}: its network is a {class_name}, which {module.__file__} does not define; use a newer checkout"
        )
    return module


def _import(path: Path, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{path}: building its network needs {name} of its upstream ({error}); run this in a checkout of it"
        ) from None


def _construct(
    upstream: ModuleType, info: NetworkInfo, tensors: Mapping[str, torch.Tensor], overrides: dict[str, Any]
) -> torch.nn.Module:
    """Build the network. Refuse arguments that ask for a much larger network than the file holds."""
    kwargs = info.init_kwargs | overrides
    _check_arguments(upstream, {**{str(place): value for place, value in enumerate(info.init_args, 1)}, **kwargs})
    try:
        module = budget.build(lambda: getattr(upstream, info.class_name)(*info.init_args, **kwargs), tensors.values())
    except (TooBigError, UserError):
        raise
    except Exception as error:  # upstream's assertions fail, arguments are missing or unknown, or sizes do not fit
        raise BrokenError(
            f"{type(error).__name__} from its constructor, {one_line(error) or 'no reason given'}"
        ) from None
    return module.eval().requires_grad_(False)


def _check_arguments(upstream: ModuleType, arguments: Mapping[str, Any]) -> None:
    """Refuse constructor arguments that no network needs.

    EDM calls whatever a `model_type` names in its module. And a product of a number and a list or text, where upstream
    expects two numbers, takes that much memory.
    """
    size = 0
    for name, argument in arguments.items():
        for value in _values(argument):
            size += len(value) if isinstance(value, str | bytes) else 1
            if isinstance(value, int | np.integer) and abs(int(value)) > raised(_LARGEST_ARGUMENT):
                raise TooBigError(f" ({one_line(name)} is {value})")
            if isinstance(value, str) and value in vars(upstream) and not _is_network(vars(upstream)[value], upstream):
                raise BrokenError(f"{one_line(name)} is {one_line(value)}, which is no network of {upstream.__name__}")
    if size > raised(_MOST_ARGUMENTS):
        raise TooBigError(f" (they are {size} numbers and characters)")


def _values(argument: Any) -> Iterator[Any]:
    """Yield the numbers and texts in a constructor argument, which is plain data."""
    if isinstance(argument, dict):
        argument = [*argument, *argument.values()]
    if isinstance(argument, list | tuple):
        for item in argument:
            yield from _values(item)
    else:
        yield argument


def _is_network(value: Any, upstream: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, torch.nn.Module) and value.__module__ == upstream.__name__


def _compare(node: Node, module: torch.nn.Module, overridden: frozenset[str]) -> None:
    """Refuse modules with other classes or settings. Take over constants that differ in their last digits."""
    stored, built = dict(node.modules()), dict(module.named_modules())
    if differing := sorted(stored.keys() ^ built.keys()):
        where = "the file" if differing[0] in stored else "the checkout's class"
        raise BrokenError(f"only {where} has the part {one_line(differing[0])} ({len(differing)} parts differ)")
    for name, part in stored.items():
        local = built[name]
        if type(local).__name__ != part.class_name:
            class_name = one_line(part.class_name)
            raise BrokenError(f"{name} is a {class_name} in the file, a {type(local).__name__} in the checkout")
        for attribute, value in part.attributes().items():
            if attribute in vars(local) and attribute not in overridden:
                _compare_attribute(f"{name}.{attribute}".lstrip("."), local, attribute, value)


def _compare_attribute(title: str, local: torch.nn.Module, attribute: str, value: Any) -> None:
    value, built = plain(value), getattr(local, attribute)
    if isinstance(value, float) and isinstance(built, float) and abs(value - built) <= _SAME_NUMBER * abs(built):
        setattr(local, attribute, value)
    elif not _same(value, built):
        raise BrokenError(f"{one_line(title)} is {_line(value)} in the file, {_line(built)} in the checkout")


def _line(value: Any) -> str:
    return one_line(value if isinstance(value, str) else shown(value))


def _same(value: Any, built: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(built, list | tuple):
        return len(value) == len(built) and all(map(_same, value, built))
    try:
        return bool(value == built)
    except (ValueError, RuntimeError):  # an array or a tensor does not equal plain data
        return False


def _fill(path: Path, module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill every parameter and buffer from the file, in the file's dtype. None may be missing or left over."""
    try:
        module.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{path}: its weights do not fit the checkout's {type(module).__name__}: {one_line(error)}"
        ) from None
    module.requires_grad_(False)


def _source_of(module: torch.nn.Module) -> str | None:
    return getattr(type(module), "_orig_module_src", None)


def _load_trusted(path: Path, key: str, overrides: Mapping[str, Any]) -> Loaded:
    """Load a network as upstream does. The file's code runs with the rights of this process."""
    _import(path, "torch_utils.persistence")
    try:
        with path.open("rb") as file:
            data = pickle.load(file)
    except Exception as error:  # whatever the file's own code raises
        raise UserError(f"{path}: cannot be loaded, {type(error).__name__}: {one_line(error)}") from None
    module = data.get(key) if isinstance(data, dict) else data
    if not isinstance(module, torch.nn.Module):
        raise UserError(f"{path}: no network {key!r} in it")
    module = module.cpu().eval().requires_grad_(False)
    for name, value in overrides.items():
        _set_everywhere(path, module, name, value)
    return Loaded(module, _info_of(module), True)


def _set_everywhere(path: Path, module: torch.nn.Module, name: str, value: Any) -> None:
    parts = [part for part in module.modules() if name in vars(part)]
    if not parts:
        raise UserError(f"{path}: cannot set {name}={value}, because no part of its network has {name}")
    for part in parts:
        setattr(part, name, value)


def _info_of(module: torch.nn.Module) -> NetworkInfo:
    """Describe a live module like an inert node: its state is what would be pickled."""

    def node(part: torch.nn.Module) -> Node:
        state = {name: value for name, value in vars(part).items() if not name.endswith("_hooks")}
        state["_modules"] = {name: child and node(child) for name, child in part._modules.items()}
        return Node(getattr(type(part), "_orig_class_name", type(part).__name__), None, state)

    source = _source_of(module)
    return dataclasses.replace(network_info(node(module)), source_sha256=sha256_text(source) if source else None)
