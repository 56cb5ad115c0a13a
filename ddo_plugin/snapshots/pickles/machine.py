"""An interpreter of pickles that can call only the constructors in a given list.

`pickle.Unpickler` with a guarded `find_class` is not enough: it still sets attributes on any object, reserves memory by
the sizes that a file claims, and hashes whatever the file says. Here each opcode is implemented explicitly.
`pickletools` only splits the stream.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

from ddo_plugin.snapshots.pickles.allowance import Allowance
from ddo_plugin.snapshots.pickles.nodes import BrokenError, ForbiddenError, LimitError, Unknown

LONGEST_NAME = 120
_LONGEST_GLOBAL = 1000  # characters
_LONGEST_KEY = 60  # bits of an integer; the hash of a longer one differs from its value
_MOST_MEMO = 1 << 32  # the text form of an index can be longer

_ATOMS = (str, bytes, int, float, bool, type(None))
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_VALUES = _NUMBERS | _TEXTS | _BYTES
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass(frozen=True)
class Constructors:
    """What a pickle may use: one of our functions for each global name, and a function that sets an object's state."""

    allowed: Mapping[tuple[str, str], Callable[..., Any]]
    build: Callable[[Any, Any], None]
    persistent: Callable[[Any], Any] | None = None


@dataclass
class Findings:
    """What a file refers to, and what reading it may still cost. The pickles inside a pickle share it."""

    allowance: Allowance
    globals: dict[str, bool] = field(default_factory=dict)  # whether each is allowed
    refusals: dict[str, None] = field(default_factory=dict)  # the reasons against loading
    sources: dict[str, dict[str, None]] = field(default_factory=dict)  # source text -> names of its classes


@dataclass(frozen=True)
class Global:
    """A name that the pickle refers to. `make` is None if the name is not allowed."""

    title: str
    make: Callable[..., Any] | None


class Machine:
    """Runs one pickle. A survey records what would be refused and continues with inert objects instead."""

    def __init__(self, constructors: Constructors, findings: Findings, *, survey: bool = False):
        self.constructors = constructors
        self.findings = findings
        self.survey = survey

    def run(self, stream: IO[bytes], size: int) -> Any:
        """Return the value of the pickle at the position of `stream`, which ends at byte `size`."""
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        position: int | None = 0
        bounded = cast(IO[bytes], _Bounded(stream, size))
        try:
            for opcode, argument, start in pickletools.genops(bounded):
                position = start
                self.findings.allowance.step()
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise BrokenError(f"it is not a valid pickle at byte {position}: {one_line(error)}") from None
        raise BrokenError("it ends too early")

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.findings.allowance.take(sys.getsizeof(argument))
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name == "MARK":
            self.stack.append(_MARK)
        elif step := _STEPS.get(name):
            step(self, argument)
        else:
            self.stack.append(
                self._forbid(f"the opcode {name}" + ("" if argument is None else f" {one_line(argument)}"))
            )

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value was expected")
        return value

    def _pop_mark(self) -> list[Any]:
        items = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _discard(self) -> None:
        self.stack.pop()

    def _discard_to_mark(self) -> None:
        self._pop_mark()

    def _peek(self, kind: type | tuple[type, ...]) -> Any:
        value = self.stack[-1]
        if not isinstance(value, kind) and not isinstance(value, Unknown):
            raise ValueError(f"items for a {type(value).__name__}")
        return value

    def _forbid(self, what: str) -> Unknown:
        if not self.survey:
            raise ForbiddenError(what)
        self.findings.refusals[what] = None
        return Unknown(what)

    def _memoize(self, index: int | None) -> None:
        place = len(self.memo) if index is None else index
        if not 0 <= place < _MOST_MEMO:
            raise ValueError("an entry of the memo with such a number")
        self.memo[place] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def _append(self, items: list[Any]) -> None:
        target = self._peek(list)
        if isinstance(target, list):
            target.extend(items)

    def _add(self, items: list[Any]) -> None:
        target = self._peek(set)
        if isinstance(target, set):
            target.update(self._key(item) for item in items)

    def _set(self, pairs: list[Any]) -> None:
        target = self._peek(dict)
        if isinstance(target, dict):
            target.update(self._dict(pairs))

    def _dict(self, pairs: list[Any]) -> dict[Any, Any]:
        if len(pairs) % 2:
            raise ValueError("a key without a value")
        return {self._key(key): value for key, value in zip(pairs[::2], pairs[1::2], strict=True)}

    def _key(self, key: Any) -> Any:
        if not is_quick_key(key):
            if self.survey:
                return f"<{type(key).__name__}>"
            raise ValueError(f"a {type(key).__name__} as a key")
        return key

    def _global(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str) and len(module) + len(name) <= _LONGEST_GLOBAL):
            raise ValueError("a global whose name is not text or is too long")
        title, make = one_line(f"{module}.{name}"), self.constructors.allowed.get((module, name))
        self.findings.globals[title] = make is not None
        if make is None:
            self._forbid(title)
        self.stack.append(Global(title, make))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    def _call(self, function: Any, arguments: Any) -> None:
        if isinstance(function, Unknown) or (isinstance(function, Global) and function.make is None):
            self.stack.append(Unknown(function.what if isinstance(function, Unknown) else function.title))
        elif isinstance(function, Global) and function.make and isinstance(arguments, tuple):
            try:
                self.stack.append(function.make(*arguments))
            except ForbiddenError as error:
                self.stack.append(self._forbid(str(error)))
            except LimitError:
                raise
            except BrokenError as error:
                if not self.survey:
                    raise
                self.stack.append(self._forbid(f"{function.title} of {error}"))
        else:
            raise ValueError(f"a call of a {type(function).__name__}")

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._call(function, arguments)

    def _object(self) -> None:
        function, *arguments = self._pop_mark()
        self._call(function, tuple(arguments))

    def _instance(self, title: str) -> None:
        arguments = self._pop_mark()
        self._global(*title.split(" ", 1))
        self._call(self._pop(), tuple(arguments))

    def _new_with_keywords(self) -> None:
        self._pop()
        arguments, function = self._pop(), self._pop()
        title = function.title if isinstance(function, Global) else "a class"
        self._call(self._forbid(f"{title} with keyword arguments"), arguments)

    def _build(self) -> None:
        state, target = self._pop(), self.stack[-1]
        if isinstance(target, Global):
            self._forbid(f"changing {target.title}")
        elif not isinstance(target, Unknown):
            self.constructors.build(target, state)

    def _persistent(self, identity: Any) -> None:
        if self.constructors.persistent:
            self.stack.append(self.constructors.persistent(identity))
        else:
            self.stack.append(self._forbid("a persistent id, which only torch's checkpoints have"))


_STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "POP": lambda m, a: m._discard(),
    "POP_MARK": lambda m, a: m._discard_to_mark(),
    "MEMOIZE": lambda m, a: m._memoize(None),
    "PUT": Machine._memoize,
    "BINPUT": Machine._memoize,
    "LONG_BINPUT": Machine._memoize,
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "TUPLE": lambda m, a: m.stack.append(tuple(m._pop_mark())),
    "LIST": lambda m, a: m.stack.append(m._pop_mark()),
    "DICT": lambda m, a: m.stack.append(m._dict(m._pop_mark())),
    "FROZENSET": lambda m, a: m.stack.append(frozenset(map(m._key, m._pop_mark()))),
    "APPEND": lambda m, a: m._append([m._pop()]),
    "APPENDS": lambda m, a: m._append(m._pop_mark()),
    "ADDITEMS": lambda m, a: m._add(m._pop_mark()),
    "SETITEM": lambda m, a: m._set([m._pop(), m._pop()][::-1]),
    "SETITEMS": lambda m, a: m._set(m._pop_mark()),
    "GLOBAL": lambda m, a: m._global(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m._stack_global(),
    "REDUCE": lambda m, a: m._reduce(),
    "NEWOBJ": lambda m, a: m._reduce(),
    "NEWOBJ_EX": lambda m, a: m._new_with_keywords(),
    "OBJ": lambda m, a: m._object(),
    "INST": lambda m, a: m._instance(a),
    "BUILD": lambda m, a: m._build(),
    "PERSID": Machine._persistent,
    "BINPERSID": lambda m, a: m._persistent(m._pop()),
}


class _Bounded:
    """A stream that never reserves memory for more bytes than are left in the file."""

    def __init__(self, stream: IO[bytes], size: int):
        self._stream, self._size = stream, size
        self.readline, self.tell = stream.readline, stream.tell

    def read(self, count: int) -> bytes:
        return self._stream.read(max(0, min(count, self._size - self._stream.tell())))


def is_quick_key(key: Any) -> bool:
    """Return False for keys that are slow to hash, as nested tuples, and long integers, whose hashes can be alike."""
    return isinstance(key, _ATOMS) and not (isinstance(key, int) and key.bit_length() > _LONGEST_KEY)


def one_line(text: object, longest: int = LONGEST_NAME) -> str:
    """Return a text from a file or an exception as a single printable line of limited length."""
    start = str(text)[: longest + 1]
    printable = "".join(character if character.isprintable() else " " for character in start)
    return printable if len(printable) <= longest else printable[: longest - 1] + "…"
