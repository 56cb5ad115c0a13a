"""Which packages a checkout imports, told from its source; nothing of it is run."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddo_plugin.base.errors import UserError

DISTRIBUTIONS = {  # where pip calls it otherwise
    "PIL": "pillow",
    "cv2": "opencv-python",
    "distutils": "setuptools",
    "tap": "typed-argument-parser",
}


@dataclass(frozen=True)
class Imports:
    """Packages that are neither of the checkout nor of python, each with the first file that imports it."""

    to_train: Mapping[str, str]  # imported as soon as the training script is
    elsewhere: Mapping[str, str]  # by other scripts, inside functions, or where a failure is caught


def read_imports(root: Path, script: str) -> Imports:
    """What the scripts of a checkout import, and which of it the training script cannot start without."""
    own = _own_modules(root)
    reached = _reached_from(root / script, own)
    to_train = _first_files(root, ((file, name) for file in reached for name, at_once in _names(file) if at_once))
    others = [file for files in own.values() for file in files if file not in reached and _parses(file)]
    elsewhere = _first_files(root, ((file, name) for file in [*reached, *others] for name, _ in _names(file)))
    foreign = [name for name in elsewhere if name not in own and name not in sys.stdlib_module_names]
    return Imports(
        {name: to_train[name] for name in foreign if name in to_train},
        {name: elsewhere[name] for name in foreign if name not in to_train},
    )


def missing(packages: Mapping[str, str]) -> dict[str, str]:
    """Those that this environment lacks."""
    return {name: file for name, file in packages.items() if not _is_there(name)}


def refuse_missing_packages(packages: Mapping[str, str]) -> None:
    """An import that fails in the middle of a script would say less."""
    if lacking := missing(packages):
        names = " ".join(sorted(map(distribution, lacking)))
        told = ", ".join(f"{file} imports {name}" for name, file in lacking.items())
        raise UserError(f"{told}, which this environment lacks: pip install {names}")


def distribution(package: str) -> str:
    """What pip calls it."""
    return DISTRIBUTIONS.get(package, package)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # something has put a module without a spec into sys.modules
        return True


def _own_modules(root: Path) -> dict[str, list[Path]]:
    """The checkout's modules and packages by name, with all of their files."""
    modules = {path.stem: [path] for path in sorted(root.glob("*.py"))}
    for folder in sorted(root.iterdir()):
        if folder.name.isidentifier() and any(folder.glob("*.py")):
            modules[folder.name] = sorted(folder.rglob("*.py"))
    return modules


def _reached_from(script: Path, own: Mapping[str, list[Path]]) -> list[Path]:
    """The script and every file of the modules it imports at once; a package counts whole: it is loaded by names."""
    reached = [script]
    for file in reached:  # grows while it is walked
        for name, at_once in _names(file):
            if at_once:
                reached += [path for path in own.get(name, []) if path not in reached]
    return reached


def _first_files(root: Path, pairs: Iterable[tuple[Path, str]]) -> dict[str, str]:
    first: dict[str, str] = {}
    for file, name in pairs:
        first.setdefault(name, file.relative_to(root).as_posix())
    return dict(sorted(first.items()))


def _names(file: Path) -> Iterator[tuple[str, bool]]:
    """Top-level names of what a file imports, and whether importing the file needs them at once."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file} cannot be read as python, so no run can start from it: {error}") from None
    yield from _in_body(tree.body, at_once=True)


def _parses(file: Path) -> bool:
    try:
        list(_names(file))
    except UserError:
        return False
    return True


def _in_body(nodes: Iterable[ast.AST], at_once: bool) -> Iterator[tuple[str, bool]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module and not node.level:
                yield node.module.partition(".")[0], at_once
        else:
            yield from _in_body(ast.iter_child_nodes(node), at_once and not _may_be_skipped(node))


def _may_be_skipped(node: ast.AST) -> bool:
    """Whether what stands in this statement may fail or never run, and the file is imported all the same."""
    if isinstance(node, ast.Try):
        return any(not _raises(handler) for handler in node.handlers)
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test) or "__main__" in ast.unparse(node.test)
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def _raises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))
