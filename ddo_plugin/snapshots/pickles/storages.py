"""Reads the numbers of a tensor. `torch.save` writes them in its legacy format as five pickles, then the bytes.

`torch.storage._load_from_bytes` unpickles without any check. Even with `weights_only=True`, `torch.load` reserves as
much memory as the file claims, and it was not safe before torch 2.6 (CVE-2025-32434).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ddo_plugin.snapshots.pickles.allowance import OBJECT
from ddo_plugin.snapshots.pickles.machine import Constructors, Findings, Global, Machine
from ddo_plugin.snapshots.pickles.nodes import BrokenError, ForbiddenError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


@dataclass(frozen=True)
class Claim:
    """What a storage claims to hold, before its bytes are read."""

    dtype: torch.dtype
    key: str
    numel: int


def read(data: Any, findings: Findings, *, survey: bool) -> torch.Tensor:
    """Return the flat tensor in the bytes of a saved storage, on the CPU."""
    if not isinstance(data, bytes | bytearray):
        raise BrokenError("a storage that is not bytes")
    findings.allowance.take(len(data) + OBJECT)
    machine = Machine(_CONSTRUCTORS, findings, survey=survey)
    stream = io.BytesIO(data)  # shares the memory of bytes
    magic, protocol, system, claim, keys = (machine.run(stream, len(data)) for _ in range(5))
    if (magic, protocol) != (MAGIC, PROTOCOL) or not isinstance(claim, Claim) or keys != [claim.key]:
        raise BrokenError("a storage in an unknown format")
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise BrokenError("a storage of a big-endian machine")
    return _numbers(claim, data, stream.tell())


def _numbers(claim: Claim, data: bytes | bytearray, start: int) -> torch.Tensor:
    count = int.from_bytes(data[start : start + 8], "little")
    if count != claim.numel or len(data) - start - 8 != count * claim.dtype.itemsize:
        raise BrokenError(f"a storage that claims {claim.numel} numbers and holds another count")
    tensor = torch.empty(count, dtype=claim.dtype)
    tensor.view(torch.uint8).numpy()[:] = np.frombuffer(data, np.uint8, offset=start + 8)
    return tensor


def read_claim(identity: Any) -> Claim:
    """Return what a persistent id claims. The legacy format has a sixth part, which is None but for old views."""
    if not (isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] == "storage"):
        raise BrokenError("a storage of unexpected parts")
    _, kind, key, _location, numel, *view = identity
    name = kind.title.removeprefix("torch.") if isinstance(kind, Global) else None
    if name not in DTYPES or not isinstance(key, str) or type(numel) is not int or view not in ([], [None]):
        raise BrokenError("a storage of unexpected parts")
    return Claim(DTYPES[name], key, numel)


def _never_called(*_: Any) -> Any:
    raise ForbiddenError("a call of a storage class")


def _never_built(*_: Any) -> None:
    raise ForbiddenError("state for a storage class")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {("torch", name): _never_called for name in DTYPES}
_CONSTRUCTORS = Constructors(_ALLOWED, _never_built, read_claim)
