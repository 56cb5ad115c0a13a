"""Mutations of the files that the patches are for: what DDO calls patchable works, as far as its bytecode tells.

The judge reads compiled code and knows nothing of the syntax trees by which `ddo apply` decides. From the start of a
function it follows every jump, and asks whether a line is reached, and with which names bound.
"""

from __future__ import annotations

import builtins
import dis
import random
import re
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType

import pytest

from ddo_plugin.checkouts.patching.format import FilePatch, load
from ddo_plugin.checkouts.patching.placing import Inspection, State, inspect

PATCHES = Path(__file__).parents[2] / "patches"
UPSTREAMS = {"edm": "edm", "edm2": "edm2", "VAR": "var"}
FEW, MANY = 75, 400  # mutations of each file

# -- the judge ------------------------------------------------------------------------------------------------------


class Code:
    """The instructions of one function, class or module."""

    def __init__(self, code: CodeType, name: str) -> None:
        self.code, self.name = code, name
        self.steps = list(dis.get_instructions(code))
        self.at = {step.offset: number for number, step in enumerate(self.steps)}
        self.lines: list[int] = []
        for step in self.steps:
            found = getattr(step, "line_number", step.starts_line)  # the former from Python 3.13 on
            self.lines.append(found if isinstance(found, int) else self.lines[-1] if self.lines else 0)

    def reachable(self, starts: list[int], stop: Callable[[int], bool]) -> set[int]:
        """Return the instructions that some way leads to that passes none at which to stop."""
        seen, todo = set(), starts
        while todo:
            number = todo.pop()
            if number in seen or number >= len(self.steps):
                continue
            seen.add(number)
            if not stop(number):
                todo += self._next(number)
        return seen

    def _next(self, number: int) -> list[int]:
        step = self.steps[number]
        jumps = step.opcode in dis.hasjrel or step.opcode in dis.hasjabs
        after = [self.at[step.argval]] if jumps else []
        ends = step.opname.startswith(("RETURN_", "RAISE_", "RERAISE")) and step.opname != "RETURN_GENERATOR"
        if not ends and step.opname not in ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_ABSOLUTE"):
            after.append(number + 1)
        return after

    def of_line(self, line: int) -> list[int]:
        return [number for number, at in enumerate(self.lines) if at == line]

    def names(self, kind: str, numbers: list[int] | None = None) -> list[tuple[int, str]]:
        """Return the instructions that load, store or delete names, with the names."""
        of = range(len(self.steps)) if numbers is None else numbers
        named = re.compile(rf"(^|_){kind}_(FAST|NAME|GLOBAL|DEREF|CLASSDEREF)")
        found = []
        for number in of:
            step = self.steps[number]
            if named.search(step.opname):
                values = step.argval if isinstance(step.argval, tuple) else (step.argval,)
                found += [(number, value) for value in values]
        return found

    def may_be_unbound(self, name: str, line: int) -> bool:
        stores = {number for number, stored in self.names("STORE") if stored == name}
        deletions = [number + 1 for number, deleted in self.names("DELETE") if deleted == name]
        starts = deletions if name in self.code.co_varnames[: parameters(self.code)] else [0, *deletions]
        return bool(self.reachable(starts, stores.__contains__) & set(self.of_line(line)))


def parameters(code: CodeType) -> int:
    flags = bool(code.co_flags & 4) + bool(code.co_flags & 8)  # *args, **kwargs
    return code.co_argcount + code.co_kwonlyargcount + flags


def codes(data: bytes) -> list[Code]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = compile(data, "mutant.py", "exec")

    def within(code: CodeType, name: str) -> Iterator[Code]:
        yield Code(code, name)
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                yield from within(inner, f"{name}.{inner.co_name}")

    return list(within(module, ""))


def line_numbers(patch: FilePatch, data: bytes) -> list[int]:
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    return [lines.index(line) + 1 for hunk in patch.hunks for line in hunk.lines]


def homes(patch: FilePatch, data: bytes) -> list[str]:
    """Return the name of the code that each inserted line belongs to."""
    return [home(codes(data), line).name for line in line_numbers(patch, data)]


def home(all_codes: list[Code], line: int) -> Code:
    return min((code for code in all_codes if code.of_line(line)), key=lambda code: code.name.count("."))


def faults(patch: FilePatch, data: bytes, expected: list[str]) -> Iterator[str]:
    all_codes = codes(data)
    module = all_codes[0]
    globals_ = {name for _, name in module.names("STORE")} | set(dir(builtins))
    for line, name in zip(line_numbers(patch, data), expected, strict=True):
        if not any(code.of_line(line) for code in all_codes):
            yield f"line {line} is compiled to nothing, as what is never reached"
            continue
        code = home(all_codes, line)
        numbers = code.of_line(line)
        if code.name != name:
            yield f"line {line} is in {code.name}"
        if not code.reachable([0], lambda _: False) & set(numbers):
            yield f"line {line} is not reached"
        for _, read in code.names("LOAD", numbers):
            local = code is module or read in {*code.code.co_varnames, *code.code.co_cellvars}
            if (local and read not in dir(builtins) and code.may_be_unbound(read, line)) or (
                not local and read not in globals_
            ):
                yield f"line {line} needs {read}"
        source = data.split(b"\n")[line - 1]
        if b"inject.configure(" in source:
            yield from configuration_faults(code, numbers)
    own = {code.name: code for code in all_codes if code is module or code.name in expected}
    if [name for code in own.values() for _, name in code.names("STORE")].count("inject") != 1:
        yield "inject is bound twice"


def configuration_faults(code: Code, numbers: list[int]) -> Iterator[str]:
    """The configuration `c` is neither bound nor changed after the call, and handed on."""
    later = code.reachable([numbers[-1] + 1], lambda _: False) - set(numbers)
    if (max(numbers), "c") in code.names("STORE", sorted(later)):
        yield "c is bound again"
    handed_on = False
    for line in {code.lines[number] for number in later}:
        on_line = [number for number in code.of_line(line) if number in later]
        if "c" not in [name for _, name in code.names("LOAD", on_line)]:
            continue
        names = [code.steps[number].opname for number in on_line]
        methods = [code.steps[number].argval for number in on_line if "LOAD_METHOD" in code.steps[number].opname]
        if "STORE_ATTR" in names or "STORE_SUBSCR" in names or "update" in methods:
            yield f"line {line} changes c"
        handed_on = True
    if not handed_on:
        yield "c is not used"


# -- the mutations --------------------------------------------------------------------------------------------------

HOSTILE = ["del {0}", "{0} = None", "return", "raise ValueError", "inject = 5", "def {0}(): pass", "import {0}"]
HOSTILE += ["for {0} in (): pass", "global {0}", "{0}.update(x=1)", "{0}.x = 1", "print({0})", "if 0: {0} = 1"]
HARMLESS = ["", "# a note", "print('a note')", "a_name_of_mine = 1"]


def mutate(rng: random.Random, lines: list[str], names: list[str], near: list[int]) -> list[str]:
    """Return the file with one to three edits; half of them are near the places of the patch."""
    lines = [*lines]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(lines)) if rng.random() < 0.5 else rng.choice(near) + rng.randint(-12, 12)
        at = max(0, min(at, len(lines) - 1))
        to = rng.randrange(len(lines))
        size = rng.choice([1, 1, 2, 4, 8, 30])
        name, other = rng.choice(names), rng.choice([*names, "renamed"])
        what = rng.choice(
            ["rename", "rename", "rename one", "delete", "move", "copy", "hostile", "harmless", "function"]
        )
        if what == "rename":
            lines = [re.sub(rf"\b{name}\b", other, line) for line in lines]
        elif what == "rename one":
            lines[at] = re.sub(rf"\b{name}\b", other, lines[at])
        elif what == "delete":
            del lines[at : at + size]
        elif what == "move":
            block = lines[at : at + size]
            del lines[at : at + size]
            lines[to:to] = block
        elif what == "copy":
            lines[to:to] = lines[at : at + size]
        elif what == "function":
            lines = move_function(rng, lines)
        else:
            text = rng.choice(HOSTILE if what == "hostile" else HARMLESS).format(name)
            indent = re.match(r"\s*", lines[at])[0]
            lines.insert(at, indent + text)
        if not lines:
            return [""]
    return lines


def move_function(rng: random.Random, lines: list[str]) -> list[str]:
    """Move a function, or put it into another function or class."""
    starts = [number for number, line in enumerate(lines) if re.match(r"(def|class|@)", line)] or [0]
    start = rng.choice(starts)
    end = next((n for n in range(start + 1, len(lines)) if re.match(r"(#---|if __name__|def |class )", lines[n])), None)
    block = lines[start:end]
    rest = lines[:start] + (lines[end:] if end else [])
    if rng.random() < 0.5:
        block = [rng.choice(["class Outer:", "def outer():", "if outer:"]), *(f"    {line}" for line in block)]
    to = rng.choice([start, rng.randrange(len(rest) + 1)])
    return rest[:to] + block + rest[to:]


def identifiers(patched: list[str], patch: FilePatch) -> list[str]:
    """Return names of the file; those of the inserted lines and of the lines about them come often."""
    inserted = re.findall(r"[A-Za-z_]\w*", " ".join(line.decode() for hunk in patch.hunks for line in hunk.lines))
    everywhere = sorted(set(re.findall(r"[A-Za-z_]\w*", "\n".join(patched))))
    return [*everywhere, *(name for name in inserted if name in everywhere for _ in range(len(everywhere) // 5))]


# -- the tests ------------------------------------------------------------------------------------------------------


def head(folder: Path, path: str) -> bytes:
    return subprocess.run(["git", "-C", folder, "show", f"HEAD:{path}"], capture_output=True, check=True).stdout


def patches_of(folder: Path, name: str) -> Iterator[tuple[FilePatch, bytes]]:
    stem = UPSTREAMS[name]
    for patch in load(PATCHES / f"{stem}.patch", PATCHES / f"{stem}.json"):
        yield patch, head(folder, patch.path)


def judge(patch: FilePatch, old: bytes, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    rng = random.Random(seed)
    expected = homes(patch, inspect(patch, old).with_lines)
    lines = old.decode().split("\n")
    names, near = identifiers(lines, patch), [hunk.after for hunk in patch.hunks]
    states: Counter[str] = Counter()
    wrong = []
    for number in range(count):
        mutant = "\n".join(mutate(rng, lines, names, near)).encode()
        found = inspect(patch, mutant)
        states[found.state.value] += 1
        problems: list[str] = []
        if found.state in (State.CONFLICTING, State.PRISTINE):
            problems += ["the reason is several lines"] if "\n" in found.reason else []
        else:
            problems += faults(patch, found.with_lines, expected)
            reverted = inspect(patch, found.with_lines).without_lines
            problems += [] if reverted == mutant else ["`ddo revert` does not restore it"]
        wrong += [f"{patch.path} {number}: {problem}" for problem in problems]
    if states["patchable"] <= count / 20:
        wrong.append(f"{patch.path}: nearly everything is refused, so that this shows nothing")
    return states, wrong


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", UPSTREAMS)
def test_no_mutation_that_is_called_patchable_is_broken(checkout, name: str, count: int) -> None:
    for patch, old in patches_of(checkout(name), name):
        _, wrong = judge(patch, old, count, seed=16)
        assert wrong == []


def rename(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda data: re.sub(rf"\b{old}\b".encode(), new.encode(), data)


def replace(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(old.encode(), new.encode(), 1)


EDITS = [
    ("edm", 0, rename("opts", "args"), "it needs `opts`, which has no value there"),
    ("edm", 0, replace("    opts = dnnlib", "    del kwargs, opts\n    opts: dict\n    args = dnnlib"), "`opts`"),
    (
        "edm",
        0,
        replace("    # Dry run?", "    c.total_kimg = 1\n    # Dry run?"),
        "the configuration `c` is changed in",
    ),
    ("edm", 0, replace("    # Dry run?", "    c = dict(c)\n    # Dry run?"), "the configuration `c` is changed in"),
    ("edm", 0, replace("    # Pick output", "    start(c)\n    # Pick output"), "`c` is used in line"),
    ("edm", 0, replace("    # Pick output", "    return\n    # Pick output"), "no way leads there"),
    (
        "edm",
        0,
        replace("    # Pick output", "    try: raise ValueError\n    except ValueError: raise\n    # Pick output"),
        "no way leads there",
    ),
    ("edm", 0, replace("    # Pick output", "    inject = 0\n    # Pick output"), "`inject` has another value there"),
    ("edm", 0, replace("import json", "import json as inject"), "`inject` is defined in line"),
    ("edm", 0, replace("if __name__ ==", "def main(): pass\nif __name__ =="), "`main` is defined in line"),
    ("edm2", 0, rename("outdir", "out"), "fits no place"),
    (
        "VAR",
        0,
        replace("    # build models", "    iters_train = 9\n    # build models"),
        "`iters_train` gets another value",
    ),
    ("VAR", 1, replace("    tf32: bool", "    def configure(self): pass\n    tf32: bool"), "`configure` is defined in"),
    ("VAR", 1, rename("Args", "Options"), "it is in `Options` instead of `Args`"),
]


@pytest.mark.parametrize(("name", "file", "edit", "reason"), EDITS)
def test_an_edit_after_which_ddos_lines_would_not_work_is_refused(
    checkout, name: str, file: int, edit: Callable[[bytes], bytes], reason: str
) -> None:
    patch, old = list(patches_of(checkout(name), name))[file]
    assert edit(old) != old
    found = inspect(patch, edit(old))
    assert (found.state, found.with_lines) == (State.CONFLICTING, None), explained(found)
    assert reason in found.reason


def explained(found: Inspection) -> str:
    return (found.reason or "") + (found.with_lines or b"").decode()
