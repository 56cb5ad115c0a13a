"""What a network pickle contains, determined without running it and without a checkout."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks import plugins
from ddo_plugin.snapshots.pickles import unpickler
from ddo_plugin.snapshots.pickles.machine import one_line
from ddo_plugin.snapshots.pickles.nodes import LONGEST_KEY, BrokenError, Node, plain
from ddo_plugin.snapshots.pickles.shown import shown

MOST_ENTRIES, MOST_SETTINGS = 100, 1000  # a snapshot has less than ten of each


@dataclass(frozen=True)
class NetworkInfo:
    """A network: its class, how it was constructed, its size and its interface."""

    class_name: str
    init_args: tuple[Any, ...]
    init_kwargs: dict[str, Any]
    model_class: str | None  # of the U-Net inside the preconditioner
    model_init_kwargs: dict[str, Any]
    parameters: int
    nbytes: int  # of parameters and buffers, as stored
    dtypes: tuple[str, ...]
    resolution: int | None
    channels: int | None
    label_dim: int | None  # 0: unconditional
    augment_dim: int
    source_sha256: str | None = None


@dataclass(frozen=True)
class ObjectInfo:
    """Another object in the file, such as the loss or the encoder: its class, constructor arguments and settings."""

    class_name: str
    init_args: tuple[Any, ...]
    init_kwargs: dict[str, Any]
    settings: dict[str, Any]
    source_sha256: str | None = None


@dataclass(frozen=True)
class Source:
    """The text of a Python module in the file, which `pickle.load` would run."""

    sha256: str
    text: str = field(repr=False)
    classes: tuple[str, ...]  # the classes of the file's objects that this module defines
    local: str | None = None  # the module file of the checkout with the same text, if there is one

    @property
    def nbytes(self) -> int:
        """Return the size of the text in UTF-8."""
        return len(self.text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Contents:
    """What can be said about a file without running it."""

    networks: dict[str, NetworkInfo]
    objects: dict[str, ObjectInfo]
    values: dict[str, Any]
    sources: tuple[Source, ...]
    globals: dict[str, bool]
    refusals: tuple[str, ...]
    damage: str | None = None

    @property
    def network(self) -> NetworkInfo:
        """Return the network that upstream's scripts use."""
        return self.networks["ema"] if "ema" in self.networks else next(iter(self.networks.values()))


def describe_pickle(path: Path, *, checkout: Path | None = None) -> Contents:
    """Describe a network pickle. Sources in it are compared with the module files of `checkout`."""
    survey = unpickler.survey(path)
    entries = _entries(survey.value)
    networks, objects, values, damage = {}, {}, {}, survey.damage
    if len(entries) > MOST_ENTRIES:
        damage = damage or f"{len(entries)} entries, where a snapshot has less than ten"
    for key, value in itertools.islice(entries.items(), MOST_ENTRIES):
        try:
            if isinstance(value, Node) and value.is_module:
                networks[key] = network_info(value)
            elif isinstance(value, Node):
                objects[key] = _object_info(value)
            else:
                values[key] = _described(value)
        except BrokenError as error:
            damage = damage or f"{key}: {error}"
    sources = _sources(survey.sources, module_files(checkout) if checkout else {})
    return Contents(networks, objects, values, sources, survey.globals, survey.refusals, damage)


def network_classes() -> dict[str, str]:
    """Return the network classes of all upstreams, each with the module of a checkout that defines it.

    A plugin must not change what another upstream's pickles may hold: commands pass only the classes of their own
    upstream to `network.load`.
    """
    return {name: module for known in plugins.upstreams() for name, module in known.network_classes.items()}


def missing_network_module(contents: Contents, checkout: Path) -> str:
    """Return why the networks are of another upstream than the checkout, or an empty string if they are not."""
    for network in contents.networks.values():
        declared = [known.network_classes.get(network.class_name) for known in plugins.upstreams()]
        modules = list(dict.fromkeys(filter(None, declared)))  # two upstreams may use the same name
        if modules and not any((checkout / f"{module.replace('.', '/')}.py").is_file() for module in modules):
            return f"its network is a {network.class_name} of {' or '.join(modules)}, which {checkout} does not have"
    return ""


def network_node(value: Any, key: str, path: Path) -> Node:
    """Return the network named `key` in the value of `unpickler.read`."""
    entries = _entries(value)
    node = entries.get(key, entries.get("") if len(entries) == 1 else None)
    if not (isinstance(node, Node) and node.is_module):
        raise UserError(f"{path}: no network {key!r} in it, only {', '.join(sorted(entries)) or 'nothing'}")
    return node


def network_info(node: Node) -> NetworkInfo:
    """Describe the inert node of a network."""
    tensors = state_dict(node)
    inner = next((child for child in node.state["_modules"].values() if _is_model(child)), None)
    parameters = sum(_numel(module.state["_parameters"]) for _, module in node.modules())
    inner_kwargs = _kwargs(inner) if inner else {}
    return NetworkInfo(
        class_name=node.class_name,
        init_args=_args(node),
        init_kwargs=_kwargs(node),
        model_class=inner.class_name if inner else None,
        model_init_kwargs=inner_kwargs,
        parameters=parameters,
        nbytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        resolution=_integer(node.state.get("img_resolution")),
        channels=_integer(node.state.get("img_channels")),
        label_dim=_integer(node.state.get("label_dim")),
        augment_dim=_integer(inner_kwargs.get("augment_dim")) or 0,
        source_sha256=sha256_text(node.source) if node.source is not None else None,
    )


def state_dict(node: Node) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a network's node, named as by `torch.nn.Module.state_dict`."""
    tensors: dict[str, torch.Tensor] = {}
    stored: set[int] = set()
    for prefix, module in node.modules():
        if any(value for name, value in module.state.items() if name.endswith("_hooks") and isinstance(value, dict)):
            raise BrokenError(f"the module {prefix or 'outermost'} carries hooks, which are not loaded")
        for name, tensor in {**module.state["_parameters"], **module.state["_buffers"]}.items():
            if tensor is None:
                continue
            if not isinstance(tensor, torch.Tensor):
                raise BrokenError(f"{prefix}.{name} is not a tensor")
            if not isinstance(name, str) or len(name) > LONGEST_KEY:
                raise BrokenError(f"a tensor in {prefix or 'the network'} whose name is no text or is too long")
            storage = tensor.untyped_storage().data_ptr()
            if tensor.numel() and storage in stored:
                raise BrokenError(f"{prefix}.{name} shares its numbers with another tensor")
            stored.add(storage)
            tensors[f"{prefix}.{name}" if prefix else name] = tensor
    return tensors


def sha256_text(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def module_files(checkout: Path) -> dict[str, str]:
    """Return the module files of a checkout that snapshots may carry, by the SHA-256 of their text."""
    files = sorted(file for place in ("training/*.py", "*.py") for file in checkout.glob(place) if file.is_file())
    return {sha256_text(file.read_text(errors="replace")): file.relative_to(checkout).as_posix() for file in files}


def _entries(value: Any) -> dict[str, Any]:
    """Return the file's items by name. A snapshot is a dict; a bare network is a single item without a name."""
    if isinstance(value, dict):
        return {one_line(key): item for key, item in value.items()}
    return {} if value is None else {"": value}


def _object_info(node: Node) -> ObjectInfo:
    digest = sha256_text(node.source) if node.source is not None else None
    return ObjectInfo(node.class_name, _args(node), _kwargs(node), _settings(node), digest)


def _sources(sources: Mapping[str, tuple[str, ...]], local: Mapping[str, str]) -> tuple[Source, ...]:
    described = ((sha256_text(text), text, classes) for text, classes in sources.items())
    return tuple(Source(digest, text, classes, local.get(digest)) for digest, text, classes in described)


def _is_model(value: Any) -> bool:
    return isinstance(value, Node) and value.is_module and any(c is not None for c in value.state["_modules"].values())


def _args(node: Node) -> tuple[Any, ...]:
    args = plain(node.init_args)
    return tuple(args) if isinstance(args, list | tuple) else ()


def _kwargs(node: Node) -> dict[str, Any]:
    kwargs = plain(node.init_kwargs)
    return {str(name): value for name, value in kwargs.items()} if isinstance(kwargs, dict) else {}


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def _numel(tensors: Mapping[str, Any]) -> int:
    return sum(tensor.numel() for tensor in tensors.values() if isinstance(tensor, torch.Tensor))


def _settings(node: Node) -> dict[str, Any]:
    """Return the plain attributes of an object, and for the others only a description."""
    attributes = node.attributes()
    if len(attributes) > MOST_SETTINGS:
        raise BrokenError(f"a {node.class_name} with {len(attributes)} attributes")
    return {name: _described(value) for name, value in attributes.items()}


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value
    try:
        return plain(value, limit=100)
    except BrokenError:
        return shown(value)
